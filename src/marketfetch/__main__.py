"""`python -m marketfetch`: the command line without the command."""

from marketfetch.cli.main import main

raise SystemExit(main())
