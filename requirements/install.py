"""Makes .venv hold exactly the locked packages: ``python3 requirements/install.py``.

PyTorch comes from torch.txt: on Linux a build for NVIDIA GPUs, with several GB of CUDA packages. A machine without such
a GPU needs none of that, so where pip is configured to find the CPU build of torch-cpu.txt, that one is taken.

Runs on Python 3.6 or newer and looks for a fitting one.
"""

import os
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ENVIRONMENT = os.path.join(os.path.dirname(HERE), ".venv")
CANDIDATES = [sys.executable, "python3.13", "python3.12", "python3.11", "python3.14"]
# what the locked PyTorch is built for
FITS = "import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))"


def find_python(candidates):
    """The first interpreter that can make the environment; exits with a message when there is none."""
    for candidate in filter(shutil.which, candidates):
        if subprocess.call([candidate, "-c", FITS], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0:
            return candidate
    sys.exit(
        "No Python 3.11 to 3.14 with venv and pip was found: install one (Debian, Ubuntu: apt install python3-venv),"
        " or name it: make PYTHON=/path/to/python3.12"
    )


def install(lock, optional=False):
    """Installs one lock; whether that worked. Unless it is optional, a failure ends the program."""
    python = os.path.join(ENVIRONMENT, "Scripts" if os.name == "nt" else "bin", "python")
    command = [python, "-m", "pip", "--disable-pip-version-check", "install", "--no-deps", "--require-hashes"]
    if not sys.stdout.isatty():
        command.append("-qq")
    command += ["-r", os.path.join(HERE, lock)]
    done = subprocess.run(command, stderr=subprocess.DEVNULL if optional else None)
    if done.returncode and not optional:
        sys.exit(f"pip could not install requirements/{lock}, see above")
    return done.returncode == 0


def main():
    python = find_python(CANDIDATES)
    print(f"Making .venv with {python}", flush=True)
    if subprocess.call([python, "-m", "venv", "--clear", ENVIRONMENT]):
        sys.exit(f"{python} could not make .venv, see above")
    print("Installing PyTorch", flush=True)
    if shutil.which("nvidia-smi") or not install("torch-cpu.txt", optional=True):
        print("Taking the package index's build, on Linux with several GB for GPUs", flush=True)
        install("torch.txt")
    print("Installing the other packages", flush=True)
    install("lock.txt")


if __name__ == "__main__":
    main()
