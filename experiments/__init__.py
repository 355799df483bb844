"""One question per folder: config, command, result; `LOG.md` keeps dated findings, negative ones too."""
