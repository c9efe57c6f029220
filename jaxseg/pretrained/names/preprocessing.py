"""What published weights expect of their pixels; means and deviations red first, as in configs."""

from __future__ import annotations

from jaxseg.nn.preprocessing import Preprocessing

# SegNet's release: pixels as OpenCV reads them.
SEGNET = Preprocessing(channel_order='bgr')
# ImageNet statistics of torchvision's models (0.485, 0.456, 0.406 and 0.229, 0.224, 0.225).
TORCHVISION = Preprocessing((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
# The means of VGG's and of the Microsoft ResNets' Caffe releases, which Keras kept.
CAFFE = Preprocessing((123.68, 116.779, 103.939), channel_order='bgr')
# shelhamer/fcn.berkeleyvision.org, voc_layers.py: the means that all PASCAL nets were trained with.
FCN = Preprocessing((122.67892, 116.66877, 104.00699), channel_order='bgr')
KERAS_MOBILENET = Preprocessing((127.5,), (127.5,))
