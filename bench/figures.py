"""What the programs of bench/ share: guests that are watched, means, ratios, and what the
machine was like."""
import math
import os
import platform
import re
import select
import subprocess
import time

TREE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.path.abspath(os.environ.get("BUILD", os.path.join(TREE, "build")))


# The CPU setting that suits TCG best; with plain `max` it is slower.
TCG_CPU = "max,-la57,-smap,-pku,-erms,-fsrm"


def engine_options(place):
    """Those of `bivisor run` for a place: an engine, and with a colon how user code runs, as in
    bt:off, bt:on. Nothing behind it: as it is by default."""
    engine, _, direct = place.partition(":")
    return ["--engine", engine, *(["--direct", direct] if direct else [])]


def read_until(process, text, start, limit):
    """(seconds since START, output) when the process has said TEXT, or why it has not."""
    out = b""
    while text not in out:
        left = start + limit - time.monotonic()
        if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
            return f"hung after {out[-200:]}"
        data = os.read(process.stdout.fileno(), 65536)
        if not data:
            return f"ended with {out[-200:]}"
        out += data
    return time.monotonic() - start, out


def resident(pid):
    """KiB that are in memory for that process alone, and its share of what others have, too.
    What it has mapped twice (a translator's cache) counts once, as VmRSS does not have it."""
    with open(f"/proc/{pid}/smaps_rollup") as f:
        return int(re.search(r"^Pss:\s*(\d+)", f.read(), re.M).group(1))


def watch(cmd, text, limit, settle=None, **more):
    """Runs cmd until it has said TEXT: (seconds, output, resident KiB), or why not. VmRSS; with
    SETTLE, resident() so many seconds later."""
    start = time.monotonic()
    p = subprocess.Popen(cmd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.DEVNULL, **more)
    try:
        got = read_until(p, text, start, limit)
        if isinstance(got, str):
            return got
        if settle is not None:
            time.sleep(settle)
            return *got, resident(p.pid)
        with open(f"/proc/{p.pid}/status") as f:
            rss = re.search(r"VmRSS:\s*(\d+)", f.read())
        return *got, int(rss.group(1)) if rss else 0
    finally:
        p.kill()
        p.wait()
        p.stdout.close()


def geomean(values):
    return math.exp(sum(map(math.log, values)) / len(values)) if values else None


def ratio(value):
    return "-" if value is None else f"{value:.2f}"


def best(row, engine):
    return min(row[engine]) if row.get(engine) else None


def quotient(row, engine, base):
    a, b = best(row, engine), best(row, base)
    return a / b if a and b else None


def columns(engines):
    """Engine pairs whose ratios are shown."""
    guests = [e for e in engines if e != "native"]
    pairs = [(e, "native") for e in guests] if "native" in engines else []
    if "bt" in guests and "bt:off" in guests:
        pairs.append(("bt", "bt:off"))
    return pairs + [(e, "tcg") for e in guests if e != "tcg" and "tcg" in guests]


def summary(rows, pair):
    """Geomean, worst and its name over the rows that have both."""
    got = {name: quotient(row, *pair) for name, row in rows.items()}
    got = {name: q for name, q in got.items() if q is not None}
    if not got:
        return None
    worst = max(got, key=got.get)
    return dict(geomean=geomean(list(got.values())), worst=got[worst], worst_name=worst,
                count=len(got))


def output_of(*cmd):
    try:
        return subprocess.run(cmd, capture_output=True, text=True, cwd=TREE).stdout.strip()
    except OSError:
        return ""


def conditions(bt, nice):
    """As it is before anything is measured; load_after is still to come."""
    cpu = re.search(r"model name\s*: (.*)", open("/proc/cpuinfo").read())
    qemu = output_of("qemu-system-x86_64", "--version").split("\n")[0]
    return dict(date=time.strftime("%Y-%m-%d %H:%M"), cpu=cpu.group(1) if cpu else "?",
                cpus=os.cpu_count(), host=platform.release(), qemu=qemu,
                bivisor=output_of("git", "describe", "--always", "--dirty"), bt=bt,
                load_before=os.getloadavg()[0], nice=nice)


def conditions_text(how):
    return ("bivisor {bivisor}{switches}, {qemu}; {cpu}, {cpus} CPUs, Linux {host}; {date}; load "
            "{load_before:.1f} before and {load_after:.1f} after, nice {nice}".format(
                switches=f" --bt {how['bt']}" if how["bt"] else "", **how))
