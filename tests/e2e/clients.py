"""A virtual environment in the build folder for tests that drive Baton with other people's clients. require() runs the calling
test again inside it; where none can be had (no network, no venv module) the test is skipped, visibly."""
import fcntl
import os
import subprocess
import sys

import cluster

MARK = "BATON_E2E_VENV"
PACKAGES = ("openai", "grpcio", "grpcio-tools", "grpcio-health-checking", "grpcio-reflection")


def build(folder):
    """Makes it, or finds it made; None: cannot, and why."""
    python = os.path.join(folder, "bin", "python")
    done = os.path.join(folder, "complete")
    os.makedirs(folder, exist_ok=True)
    with open(folder + ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.exists(done):
            return python, ""
        for argv in ([sys.executable, "-m", "venv", "--clear", folder],
                     [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "1", *PACKAGES]):
            try:
                made = subprocess.run(argv, capture_output=True, text=True, timeout=150)
            except (OSError, subprocess.TimeoutExpired) as why:
                return None, str(why)
            if made.returncode != 0:
                return None, (made.stderr or made.stdout).strip().splitlines()[-1]
        open(done, "w").close()
    return python, ""


def require():
    """Returns in a process that has the packages, or does not return."""
    if os.environ.get(MARK):
        return
    base = os.environ.get("BATON_BUILD") or os.path.join(cluster.SOURCE, "build", "release")
    python, why = build(os.path.join(base, "e2e-venv"))
    if python is None:
        cluster.skip_program(f"no virtual environment with {', '.join(PACKAGES)}: {why}")
    os.execve(python, [python, "-B", *sys.argv], {**os.environ, MARK: "1"})
