"""`jaxseg compile` in a clone: the flags and what they do are in jaxseg/commands/compile.py."""

from jaxseg import commands

if __name__ == '__main__':
  commands.run('compile')
