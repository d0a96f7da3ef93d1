# Sourced by the other tools, by any POSIX shell, with their folder in $tools. `ensure_venv EXTRAS` makes or repairs .venv in the
# repository's root, $root.

root=$(dirname "$tools")
export PYTHONSAFEPATH=1 # nothing is imported from the working directory, which may hold files from anywhere
venv_python=$root/.venv/bin/python
is_supported='import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))'

say() { echo "$(basename "$0"): $1" >&2; }

find_python() {
    local python lacking=""
    for python in python3.11 python3.12 python3; do
        "$python" -c "$is_supported" 2>/dev/null || continue
        "$python" -c 'import ensurepip, venv' 2>/dev/null && echo "$python" && return
        lacking=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    done
    if [ -n "$lacking" ]; then
        say "this Python cannot make virtual environments; install the package $lacking (apt-get install $lacking)"
    else
        say "needs Python 3.11 or 3.12 on PATH as python3.11, python3.12 or python3; found $(python3 --version 2>&1 | head -n 1)"
    fi
    return 1
}

# Before its distribution was called emu-serving it was emu: both would own the same command.
forget_old_name() {
    for found in "$root"/.venv/lib/python*/site-packages/emu-[0-9]*.dist-info; do
        [ ! -e "$found" ] || "$venv_python" -m pip uninstall -qq --disable-pip-version-check -y emu || return 1
    done
    rm -rf "$root/emu.egg-info"
}

ensure_venv() {
    local extras="$1" stamp="$root/.venv/installed" made_for python
    made_for=$(cksum <"$root/pyproject.toml")
    # The stamp is written last: an installation that was cut off, or is of another pyproject.toml, has none that fits.
    if "$venv_python" -c "$is_supported" 2>/dev/null && grep -qs "^$made_for .*$extras" "$stamp"; then
        return
    fi
    if ! "$venv_python" -c "import pip; $is_supported" 2>/dev/null; then
        python=$(find_python) || return 1
        say "making .venv with $("$python" --version)"
        rm -rf "$root/.venv"
        "$python" -m venv "$root/.venv" || return 1
    fi
    say "installing emu${extras:+[$extras]} and what it needs into .venv (once)"
    forget_old_name || return 1
    "$venv_python" -m pip install -qq --no-compile --disable-pip-version-check -e "$root${extras:+[$extras]}" || return 1
    # pip would do it on one core, and all of it. Some packages carry files that are no Python of today.
    "$venv_python" -m compileall -qq -j 0 -x '/(tests|transformers/models|rllib)/' "$root"/.venv/lib || true
    echo "$made_for $extras" >"$stamp"
}
