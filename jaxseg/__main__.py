"""`python -m jaxseg train ...`: see jaxseg.commands."""

from jaxseg import commands

if __name__ == '__main__':
  commands.run()
