from jaxseg.config.parts import *  # noqa: F403
from jaxseg.config.parts import arguments, coerced, defaults, did_you_mean, load, names, parameters  # noqa: F401
