# Lists the commands.
default:
    @just --list

# Starts the whole stack, until Ctrl-C: in containers if Docker is running, natively otherwise.
up *arguments:
    cargo xtask up --with auto {{ arguments }}

# Starts the whole stack in containers.
up-compose *arguments:
    cargo xtask up --with compose {{ arguments }}

# Starts the whole stack natively.
up-native *arguments:
    cargo xtask up --with native {{ arguments }}

# Stops the stack, in containers or native, and keeps its data.
down:
    cargo xtask down --with auto

# Deletes the data of the stack, in containers and native.
reset:
    cargo xtask reset --with auto

# Shows what runs, and where.
status *arguments:
    cargo xtask status --with auto {{ arguments }}

# Makes a key for the native stack, and prints it alone on the last line.
key *arguments:
    cargo xtask key {{ arguments }}

# Uploads a folder of events to ingest-api.
import folder:
    cargo xtask import {{ folder }}

# Simulates a small company that sends events, until Ctrl-C.
demo *arguments:
    cargo xtask demo {{ arguments }}

# Checks what needs no database: formatting, spelling, lints, unit tests.
check:
    cargo xtask check

# Runs everything that a change needs; with a test's name, runs that test.
test *arguments:
    cargo xtask test {{ arguments }}

# Runs everything that continuous integration runs.
ci *arguments:
    cargo xtask ci {{ arguments }}

# Starts a Postgres for tests that stays, until `just db --stop`.
db *arguments:
    cargo xtask db {{ arguments }}

# Injects faults, and checks that nothing is lost and nothing counts twice.
chaos *arguments:
    cargo xtask chaos {{ arguments }}

# Kills and cuts off nodes of a cluster of Postgres, and checks that the services follow.
ha *arguments:
    cargo xtask ha {{ arguments }}

# Runs everything for some minutes, and checks that nothing grows.
soak *arguments:
    cargo xtask soak {{ arguments }}

# Checks the manifests of Kubernetes, without a cluster.
kubernetes:
    cargo xtask kubernetes

# Lists what is missing on this machine, and how to get it.
doctor:
    cargo xtask doctor

# Checks the alerts for Prometheus, and tests when they fire.
alerts:
    cargo xtask alerts

# Measures, as ratios within one run: profile, backfill, ingest or fanout.
bench *arguments:
    cargo xtask bench {{ arguments }}

# Runs the fuzz targets (needs a nightly toolchain).
fuzz *arguments:
    cargo xtask fuzz {{ arguments }}
