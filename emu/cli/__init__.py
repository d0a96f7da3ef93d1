"""The command `emu`: a module a subcommand, each with `main(argv)`, which returns the exit code; `run` is that of KEY=VALUE."""
