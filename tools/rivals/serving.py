"""Starts a rival's server, waits for it, prints its URL, and stops it on Ctrl-C or SIGTERM."""
import os
import pathlib
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

POLL_SECONDS = 0.2
STOP_SECONDS = 20


def adapter_paths(folder, count, suffix):
    """[(name, path)] of the first `count` adapters of a folder that make_adapters.py wrote."""
    names = [f"a{index:02d}" for index in range(count)]
    paths = [(name, folder / f"{name}{suffix}") for name in names]
    for _, path in paths:
        if not path.exists():
            raise SystemExit(f"there is no {path}: make it with make_adapters.py --count {count}")
    return paths


def resident_mib(pid):
    """Resident memory of a process and its children, in MiB."""
    total, pids = 0, [pid]
    while pids:
        process = pathlib.Path("/proc") / str(pids.pop())
        try:
            for line in (process / "status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    total += int(line.split()[1]) // 1024
            for children in process.glob("task/*/children"):
                pids += map(int, children.read_text().split())
        except OSError:
            continue  # the process has ended
    return total


def answers(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status == 200
    except (OSError, urllib.error.URLError):
        return False


def serve(command, host, port, health, log, wait_seconds, environment=None):
    """Runs `command` until Ctrl-C, with its output in the file `log`.

    Prints the URL, and nothing else, on stdout once the server answers.
    """
    url = f"http://{host}:{port}"
    if answers(url + health):
        raise SystemExit(f"something answers at {url} already: choose another --port")

    def stop(*_):
        raise KeyboardInterrupt

    # SIGINT is set too, because a shell starts background jobs with SIGINT ignored.
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    with open(log, "w") as output:
        started = time.monotonic()
        server = subprocess.Popen(
            [str(word) for word in command], stdout=output, stderr=subprocess.STDOUT, env=environment,
            start_new_session=True)  # Ctrl-C must not reach the server
        try:
            while not answers(url + health):
                if server.poll() is not None:
                    raise SystemExit(f"the server ended with {server.returncode}: see {log}")
                if time.monotonic() - started > wait_seconds:
                    raise SystemExit(f"the server did not answer within {wait_seconds} s: see {log}")
                time.sleep(POLL_SECONDS)
            note(f"ready after {time.monotonic() - started:.1f} s, {resident_mib(server.pid)} MiB resident")
            print(url, flush=True)
            server.wait()
            raise SystemExit(f"the server ended with {server.returncode}: see {log}")
        except KeyboardInterrupt:
            note(f"{resident_mib(server.pid)} MiB resident when stopped")
        finally:
            end(server)


def end(server):
    if server.poll() is None:
        server.terminate()
        try:
            server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            pass
    # Ends the server's children too, which may outlive it. They are in its process group.
    try:
        os.killpg(server.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    server.wait()


def note(text):
    print(text, file=sys.stderr, flush=True)


def add_server_arguments(parser, port):
    parser.add_argument("--adapters", type=pathlib.Path, help="folder that make_adapters.py wrote")
    parser.add_argument("--count", type=int, default=0, help="how many of them to load; 0: the base alone")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--slots", type=int, default=32, help="requests that run at once")
    parser.add_argument("--context", type=int, default=512, help="tokens of each request, prompt and output")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=port)
    parser.add_argument("--wait", type=int, default=300, help="seconds within which the server has to answer")
    parser.add_argument("--log", default="rival.log", help="file for the server's own output")
    parser.add_argument("extra", nargs="*", help="after --: further arguments of the server's")
