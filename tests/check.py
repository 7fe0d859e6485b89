#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs every test program and counts: the last line is "N passed, N failed".

unit and property tests   cmocka programs below BUILD/tests, one count for each test
fuzz targets              build/fuzz/fuzz_*, with tests/corpus as seeds
integration tests         pytest below tests/integration, through a real mount
"""

import argparse
import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree

TOP = pathlib.Path(__file__).resolve().parent.parent
PROGRAM_SECONDS = 300
TAP_LINE = re.compile(r"^(not )?ok \d+ - (.*)$", re.MULTILINE)


class Tally:
    """Counts, and the names of what failed."""

    def __init__(self):
        self.passed = self.skipped = 0
        self.failures = []

    def add(self, name, passed):
        if passed:
            self.passed += 1
        else:
            self.failures.append(name)


def run(command, environment=None, timeout=PROGRAM_SECONDS):
    """Exit status and all output; a time-out counts as status 124."""
    try:
        done = subprocess.run(command, cwd=TOP, env=environment, timeout=timeout,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        return done.returncode, done.stdout.decode(errors="replace")
    except subprocess.TimeoutExpired as expired:
        return 124, (expired.stdout or b"").decode(errors="replace") + "\ntimed out"


def run_cmocka(program, tally):
    environment = dict(os.environ, CMOCKA_MESSAGE_OUTPUT="TAP")
    begin = time.monotonic()
    status, output = run([str(program)], environment)
    results = [(not bad, title) for bad, title in TAP_LINE.findall(output)]
    for good, title in results:
        tally.add(f"{program.name}: {title}", good)
    broken = status != 0 and all(good for good, _ in results)
    if broken or not results:
        tally.add(f"{program.name}: exit status {status}, {len(results)} results", False)
    if status != 0 or not results:
        print(output[-6000:])
    print(f"{'FAIL' if status or not results else 'ok  '} {program.relative_to(TOP)}: "
          f"{len(results)} tests, {time.monotonic() - begin:.1f} s", flush=True)


def run_fuzzer(program, seconds):
    corpus = TOP / "tests/corpus" / program.name.removeprefix("fuzz_")
    work = TOP / "build/fuzz/corpus" / program.name
    work.mkdir(parents=True, exist_ok=True)
    command = [str(program), f"-max_total_time={seconds}", "-rss_limit_mb=2048", "-timeout=20",
               "-print_final_stats=1", f"-artifact_prefix={work.parent}/crash-{program.name}-",
               str(work)]
    if corpus.is_dir():
        command.append(str(corpus))
    environment = dict(os.environ, UBSAN_OPTIONS="print_stacktrace=1")
    status, output = run(command, environment, seconds + PROGRAM_SECONDS)
    executed = re.search(r"stat::number_of_executed_units:\s*(\d+)", output)
    return program, status, output, int(executed[1]) if executed else 0


def run_fuzzers(programs, seconds, tally):
    workers = os.cpu_count() or 1
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        for program, status, output, executed in pool.map(
                lambda one: run_fuzzer(one, seconds), programs):
            tally.add(f"{program.name}: exit status {status}", status == 0 and executed > 0)
            if status != 0:
                print(output[-6000:])
            print(f"{'FAIL' if status else 'ok  '} {program.relative_to(TOP)}: "
                  f"{executed} inputs in {seconds} s", flush=True)


def mounts_below(folder):
    """Mount points below a folder, the newest first, with the numbers of their connections."""
    found = []
    for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[4].startswith(f"{folder}/"):
            found.append((fields[4].replace("\\040", " "), fields[2].split(":")[1]))
    return found[::-1]


def sweep_mounts(folder, tally):
    """A test run that died (SIGBUS, say) may leave mounts: they go, and that counts as a failure."""
    for mountpoint, connection in mounts_below(folder):
        abort = pathlib.Path(f"/sys/fs/fuse/connections/{connection}/abort")
        if abort.exists():
            abort.write_text("1")
        subprocess.run(["umount", "-l", mountpoint], stderr=subprocess.DEVNULL)
        tally.add(f"left mounted: {mountpoint}", False)


def run_pytest(build, sanitizer, arguments, tally):
    # Everything that tests make is in here. Short, as paths of sockets are.
    with tempfile.TemporaryDirectory(prefix="u-", ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o755)
        try:
            run_pytest_in(folder, build, sanitizer, arguments, tally)
        finally:
            sweep_mounts(folder, tally)


def run_pytest_in(folder, build, sanitizer, arguments, tally):
    report = TOP / build / "pytest.xml"
    report.unlink(missing_ok=True)
    environment = dict(os.environ, UNSHARD_BIN=str(TOP / build / "unshard"),
                       UNSHARD_SANITIZER=sanitizer, TMPDIR=folder)
    command = [sys.executable, "-m", "pytest", "tests/integration", "-q", "-rfEs",
               "--durations=8", f"--junitxml={report}"] + arguments
    if sanitizer and "-m" not in arguments:
        command += ["-m", "not heavy"]
    status = subprocess.run(command, cwd=TOP, env=environment).returncode
    if not report.exists():
        tally.add(f"pytest: exit status {status}, no report", False)
        return
    count_report(report, tally)
    if status not in (0, 1):
        tally.add(f"pytest: exit status {status}", False)


def count_report(report, tally):
    for case in xml.etree.ElementTree.parse(report).iter("testcase"):
        if case.find("skipped") is not None:
            tally.skipped += 1
            continue
        good = case.find("failure") is None and case.find("error") is None
        tally.add(f"{case.get('classname')}.{case.get('name')}", good)


def executables(folder, pattern):
    return sorted(path for path in folder.glob(pattern)
                  if path.is_file() and os.access(path, os.X_OK))


def set_sanitizer_options():
    os.environ.setdefault("ASAN_OPTIONS", "detect_leaks=1:exitcode=99")
    os.environ.setdefault("TSAN_OPTIONS", "halt_on_error=0:exitcode=66:second_deadlock_stack=1")
    os.environ.setdefault("UBSAN_OPTIONS", "print_stacktrace=1")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default="build", help="where the programs are")
    parser.add_argument("--sanitizer", default="", help="what they were built with")
    parser.add_argument("--fuzz-seconds", type=int, default=60, help="for each target (60)")
    parser.add_argument("--only", choices=["unit", "fuzz", "integration"])
    parser.add_argument("pytest", nargs="*", help="arguments for pytest, after --")
    options = parser.parse_args()
    tally = Tally()
    set_sanitizer_options()
    if options.only in (None, "unit"):
        folder = TOP / options.build / "tests"
        for program in executables(folder, "unit/test_*") + executables(folder, "property/test_*"):
            if program.suffix == "":
                run_cmocka(program, tally)
    if options.only in (None, "fuzz") and not options.sanitizer:
        targets = [path for path in executables(TOP / "build/fuzz", "fuzz_*") if not path.suffix]
        run_fuzzers(targets, options.fuzz_seconds, tally)
    if options.only in (None, "integration"):
        run_pytest(options.build, options.sanitizer, options.pytest, tally)
    for name in tally.failures:
        print(f"FAILED {name}")
    if tally.skipped:
        print(f"{tally.skipped} skipped (see above why)")
    print(f"{tally.passed} passed, {len(tally.failures)} failed")
    return 1 if tally.failures else 0


if __name__ == "__main__":
    sys.exit(main())
