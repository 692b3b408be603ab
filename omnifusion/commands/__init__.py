"""The subcommands of ``python -m omnifusion``, one module each with ``add(subparsers)`` and ``run(args)``."""
