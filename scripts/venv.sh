# Sourced by the other scripts: `. scripts/venv.sh EXTRAS` makes .venv with pinned dependencies.
# A second call with the same pins and extras installs nothing.
extras="$1"
stamp=".venv/.installed-$extras"
wanted="$(cat pyproject.toml scripts/constraints.txt | cksum)"
if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$wanted" ]; then
    echo "installing into .venv (extras: $extras); a few minutes the first time"
    [ -d .venv ] || "${PYTHON:-python3}" -m venv .venv
    # First and by itself, so that nothing else chooses another build of it.
    .venv/bin/pip install --quiet --disable-pip-version-check -c scripts/constraints.txt torch
    .venv/bin/pip install --quiet --disable-pip-version-check -c scripts/constraints.txt -e ".[$extras]"
    # Compared with in tests, and bringing what cannot be here: torchvision has no CPU build.
    [ "$extras" != dev ] || .venv/bin/pip install --quiet --disable-pip-version-check --no-deps \
        -c scripts/constraints.txt scikit-video torch-fidelity
    echo "$wanted" > "$stamp"
fi
export PATH="$PWD/.venv/bin:$PATH"
