#!/usr/bin/env bash
# Installs Detectron2 at a pinned commit into the given environment, built against its torch.
# usage: tools/install_detectron2.sh VENV [CLONE]
#   VENV   a virtual environment that has torch, setuptools<81, wheel and ninja
#   CLONE  a local clone (working tree or bare git directory) to use instead of GitHub
# Exits with 1, after one line that says why, where Detectron2 can't be installed.
set -euo pipefail

repository=https://github.com/facebookresearch/detectron2.git
commit=02b5c4e295e990042a714712c21dc79b731e8833
python=$1/bin/python
clone=${2:-}
log=$1/detectron2.log
installed=$1/.detectron2 # names the commit that was built

export GIT_TERMINAL_PROMPT=0
export PIP_DISABLE_PIP_VERSION_CHECK=1

give_up() {
    echo "Detectron2 is not installed: $1; what needs it is skipped" >&2
    exit 1
}

bounded() { # SECONDS COMMAND...
    if command -v timeout >/dev/null; then timeout "$@"; else "${@:2}"; fi
}

if [ "$(cat "$installed" 2>/dev/null)" = "$commit" ] &&
    "$python" -c "import detectron2._C" 2>/dev/null; then
    echo "Detectron2 is installed (commit ${commit:0:10})"
    exit 0
fi

if [ -z "$clone" ]; then
    requirement="detectron2 @ git+$repository@$commit"
else
    [ -d "$clone" ] || give_up "DETECTRON2=$clone is not a directory, give the path of a clone"
    clone=$(cd "$clone" && pwd)
    # The user named this clone: git need not mind who owns it.
    export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0="*"
    if ! git -C "$clone" cat-file -e "$commit^{commit}" 2>/dev/null; then
        give_up "DETECTRON2=$clone has no commit ${commit:0:10}, run \`git fetch\` in it"
    fi
    requirement=$(mktemp -d)
    trap 'rm -rf "$requirement"' EXIT
    git -C "$clone" archive "$commit" | tar -x -C "$requirement"
fi

retry="\`make detectron2\` tries again, \`make detectron2 DETECTRON2=/path/to/clone\` takes a local clone"
if [ -z "$clone" ] && ! bounded 60 git ls-remote "$repository" HEAD >"$log" 2>&1; then
    give_up "$repository can't be reached ($retry)"
fi

echo "Building Detectron2 from ${clone:-$repository} at ${commit:0:10} (some minutes; log in $log)"
# No cache: a wheel built against another torch must not come back.
build() {
    "$python" -m pip uninstall --yes detectron2 &&
        bounded 1500 "$python" -m pip install --no-build-isolation --no-cache-dir "$requirement" &&
        "$python" -c "import detectron2._C, detectron2.model_zoo"
}
rm -f "$installed"
build >"$log" 2>&1 || give_up "the build failed, see $log ($retry)"
echo "$commit" >"$installed"
echo "Detectron2 is installed (commit ${commit:0:10})"
