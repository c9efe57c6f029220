"""Commands: `jaxseg train ...`, `python -m jaxseg train ...` or, in a clone, `python launch/train.py ...`.

Every module here is a command: its docstring is the help, and `main` adds the flags to a parser, reads
them and makes one call. JAX is imported only after the flags have been checked.
"""

import importlib
import signal
import sys
import threading


def run(name: str = '') -> None:
  """Runs the command `name`, or that of the first argument; see console.run."""
  alone = threading.current_thread() is threading.main_thread()
  usual = alone and signal.getsignal(signal.SIGINT) is signal.default_int_handler
  if usual:  # Ctrl-C during imports ends without a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)
  from jaxseg import config, console  # noqa: F401

  if usual:
    signal.signal(signal.SIGINT, signal.default_int_handler)
  console.run(lambda: _run(name, sys.argv[1:]))


def _run(name: str, argv: list[str]) -> None:
  from jaxseg import console
  from jaxseg.config import parts
  from jaxseg.types import UserError

  program = f'python launch/{name}.py'
  if not name:
    name, argv = argv[0] if argv else '--help', argv[1:]
    program = f'jaxseg {name}'
  known = parts.names('commands')
  if name in ('--help', '-h', 'help'):
    console.say(*_overview(known))
  elif name not in known:
    hint = parts.did_you_mean(name, known)
    raise UserError(f'no command {name!r}: choose one of {", ".join(known)}{hint}')
  else:
    module = importlib.import_module(f'jaxseg.commands.{name}')
    about = (module.__doc__ or '').replace(f'python launch/{name}.py', program)
    module.main(console.Parser(about, program, argv))


def _overview(names: list[str]) -> list[str]:
  """Returns the lines of the general help, with the first of every command's."""
  width = max(map(len, names))
  lines = ['usage: jaxseg COMMAND [--help | --flag=value ...]', '']
  for name in names:
    about = importlib.import_module(f'jaxseg.commands.{name}').__doc__ or ''  # python -OO has none
    lines.append(f'  {name:{width}}  {about.partition(chr(10))[0]}')
  return lines
