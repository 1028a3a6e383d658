# Lists what there is.
default:
    @just --list

# Starts the whole stack until Ctrl-C: in containers where a Docker engine answers, else on this machine.
up *arguments:
    cargo xtask up --with auto {{ arguments }}

# Starts the whole stack in containers.
up-compose *arguments:
    cargo xtask up --with compose {{ arguments }}

# Starts the whole stack on this machine.
up-native *arguments:
    cargo xtask up --with native {{ arguments }}

# Stops a stack that was left running, in containers or on this machine; its data stay.
down:
    cargo xtask down --with auto

# Deletes the data of the stack, in containers and on this machine.
reset:
    cargo xtask reset --with auto

# Says what runs, and where.
status *arguments:
    cargo xtask status --with auto {{ arguments }}

# Posts the events of a folder to ingest-api.
import folder:
    cargo xtask import {{ folder }}

# Lets a small company work: events to look at, until Ctrl-C.
demo *arguments:
    cargo xtask demo {{ arguments }}

# Checks formatting, lints and documentation, then runs every test.
test *arguments:
    cargo xtask test {{ arguments }}

# Kills, freezes and cuts off whatever there is, and checks that nothing is lost or counts twice.
chaos *arguments:
    cargo xtask chaos {{ arguments }}

# Uses and disturbs everything for some minutes, and says what grew.
soak *arguments:
    cargo xtask soak {{ arguments }}

# Looks for bad input that does what no input may do; needs a nightly compiler.
fuzz *arguments:
    cargo xtask fuzz {{ arguments }}
