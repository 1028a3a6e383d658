# Lists what there is.
default:
    @just --list

# Starts the whole stack on this machine, until Ctrl-C.
up *arguments:
    cargo xtask up {{ arguments }}

# Stops a stack that was left running; its data stay.
down:
    cargo xtask down

# Deletes the data of the stack.
reset:
    cargo xtask reset

# Says what runs, and where.
status *arguments:
    cargo xtask status {{ arguments }}

# Posts the events of a folder to ingest-api.
import folder:
    cargo xtask import {{ folder }}

# Lets a small company work: events to look at, until Ctrl-C.
demo *arguments:
    cargo xtask demo {{ arguments }}

# Checks formatting, lints and documentation, then runs every test.
test *arguments:
    cargo xtask test {{ arguments }}
