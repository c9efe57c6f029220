"""`jaxseg predict` in a clone: the flags and what they do are in jaxseg/commands/predict.py."""

from jaxseg import commands

if __name__ == '__main__':
  commands.run('predict')
