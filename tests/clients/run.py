#!/usr/bin/env python3
"""Tests the server with clients that people use.

    python tests/clients/run.py target/debug/multigraft model.gguf [demo/adapters]

This command starts the server on a free port of this machine, runs every test_*.py beside this file
against it, stops it, and prints `N passed, N failed`. The arguments can also be given by name
(--server, --model, --adapters).

The clients are `openai`, `huggingface_hub`, `langchain-openai` and `litellm`. --lorax PYTHON adds
`lorax-client` and `text-generation`, --node FOLDER adds `openai` for JavaScript, and
--schemathesis PROGRAM adds tests of the OpenAPI document.
"""

import argparse
import pathlib
import sys

import pytest

from server import Server

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent


class Count:
    """A pytest plugin that counts results, and passes the running server to conftest.py."""

    def __init__(self, server, lorax, node, schemathesis):
        self.running = server
        self.lorax = lorax
        self.node = node
        self.schemathesis = schemathesis
        self.passed = 0
        self.failed = 0

    def pytest_configure(self, config):
        config.running_server = self.running
        config.lorax_python = self.lorax
        config.node_packages = self.node
        config.schemathesis = self.schemathesis

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.failed += 1
        elif report.when == "call" and report.passed:
            self.passed += 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, what in [("server", "the program"), ("model", "the base model"), ("adapters", "a folder of adapters")]:
        parser.add_argument(name, nargs="?", type=pathlib.Path, help=what)
        parser.add_argument(f"--{name}", dest=f"{name}_flag", type=pathlib.Path, help=argparse.SUPPRESS)
    parser.add_argument("--lorax", help="a Python that has requirements-lorax.txt; without it its clients are left out")
    parser.add_argument("--node", help="a folder where npm installed node/package.json; without it that client is left out")
    parser.add_argument("--schemathesis", help="that program (requirements-schemathesis.txt); without it its test is left out")
    parser.add_argument("-k", help="only the tests whose names match, as in pytest")
    given = vars(parser.parse_args())
    paths = {name: given[f"{name}_flag"] or given[name] for name in ("server", "model", "adapters")}
    paths["adapters"] = paths["adapters"] or ROOT / "demo" / "adapters"
    if None in paths.values():
        parser.error("give the program and the model")

    with Server(**paths) as server:
        count = Count(server, given["lorax"], given["node"], given["schemathesis"])
        options = ["-k", given["k"]] if given["k"] else []
        if not given["lorax"]:
            print("without --lorax, test_lorax.py and test_text_generation.py are left out")
            options += [word for name in ("lorax", "text_generation") for word in ("--ignore", str(HERE / f"test_{name}.py"))]
        status = pytest.main(["-q", "-rs", "-p", "no:cacheprovider", str(HERE), *options], plugins=[count])
    if server.process.returncode != 0:
        print(f"the server ended with status {server.process.returncode}")
        count.failed += 1
        status = 1
    print(f"{count.passed} passed, {count.failed} failed")
    return status


if __name__ == "__main__":
    sys.exit(main())
