#!/bin/sh
# install.sh VENV library|development: makes or completes the virtual environment, and says plainly what is missing.
set -eu
venv=$1
what=$2
python=${PYTHON:-python3}

command -v "$python" >/dev/null 2>&1 || {
    echo "python3 is missing. On Debian or Ubuntu: apt-get install python3 python3-venv python3-dev" >&2
    exit 1
}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "Python 3.11 or newer is needed; $("$python" --version) was found. Set PYTHON to a newer one: make PYTHON=python3.12" >&2
    exit 1
}
"$python" -c 'import ensurepip, venv' 2>/dev/null || {
    echo "python3-venv is missing. On Debian or Ubuntu: apt-get install python3-venv" >&2
    exit 1
}
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
if [ "$what" = development ]; then
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r requirements/development.txt
    touch "$venv/.development"
    exit 0
fi
command -v cc >/dev/null 2>&1 || command -v gcc >/dev/null 2>&1 || {
    echo "No C compiler: edgestore will run on its slower pure-Python kernels." >&2
    echo "For the fast ones, on Debian or Ubuntu: apt-get install gcc python3-dev, then make again." >&2
}
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable '.[server]' -c requirements/development.txt
kernel=$("$venv/bin/python" -c 'from edgestore.kernels import active_kernel; print(active_kernel)')
echo "kernels: $kernel" >&2
if [ "$kernel" = reference ] && { command -v cc || command -v gcc; } >/dev/null 2>&1; then
    echo "There is a C compiler, and the fast kernels did not build: Python.h or the C library's headers are missing." >&2
    echo "On Debian or Ubuntu: apt-get install python3-dev libc6-dev, then make clean and the same again." >&2
fi
touch "$venv/.library"
