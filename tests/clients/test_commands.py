"""`multigraft adapters` on a running server."""

import subprocess


def run(server, *arguments):
    """Status and output of a command."""
    program = [server.paths[0], "adapters", "--server", server.url, *arguments]
    done = subprocess.run(program, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout + done.stderr


def test_an_adapters_life_on_the_command_line(server):
    folder = server.paths[2]
    assert run(server, "add", f"mine={folder / 'topic'}", "--pin")[0] == 0
    status, text = run(server, "add", f"mine={folder / 'address'}")
    assert status == 2 and "mine" in text, text
    status, text = run(server, "add", f"mine={folder / 'address'}", "--replace")
    assert status == 0 and "changes the logits by" in text, text
    status, text = run(server, "ls")
    line = next(line for line in text.splitlines() if line.split()[:1] == ["mine"])
    assert "resident" in line and "yes" in line and " 2 " in line, text
    assert run(server, "pin", "mine", "--off")[0] == 0
    status, text = run(server, "limit", "mine", "--weight", "2", "--requests-per-minute", "1")
    assert status == 0 and "weight 2" in text and "1 requests per minute" in text, text
    assert run(server, "rollback", "mine")[0] == 0
    assert server.get("/v1/adapters/mine")["hash"] == server.get("/v1/adapters/topic")["hash"]
    assert run(server, "verify", "mine")[0] == 0
    status, text = run(server, "verify", "mine")
    assert status == 1 and "1 requests per minute" in text, text
    assert run(server, "limit", "mine")[0] == 0
    status, text = run(server, "verify", "mine", "topic")
    assert status == 0 and text.count("ok ") == 2, text
    assert run(server, "rm", "mine")[0] == 0
    status, text = run(server, "verify", "mine")
    assert status == 1 and "fails mine" in text, text


def test_errors_say_what_to_do(server):
    status, text = run(server, "rollback", "topic")
    assert status == 2 and "no version before" in text, text
    status, text = run(server, "add", "x=/etc")
    assert status == 2 and "--allow-source" in text, text
    program = [server.paths[0], "adapters", "--server", "http://127.0.0.1:9", "ls"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and "multigraft serve" in done.stderr, done.stderr
