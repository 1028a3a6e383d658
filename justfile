# Lists what there is.
default:
    @just --list

# Starts the whole stack on this machine, until Ctrl-C.
up:
    cargo xtask up

# Checks formatting, lints and documentation, then runs every test.
test *arguments:
    cargo xtask test {{ arguments }}
