"""Kills services one after the other and tells when each was killed and when it
ran again, on CLOCK_MONOTONIC and CLOCK_REALTIME, in nanoseconds: one line of JSON
for each. A service says that it runs by writing its name into /run/started.

The first line has what one fdatasync(2) takes here, the median of fifty: before
a service is started again two of them follow each other."""
import json, os, select, signal, subprocess, sys, time

names = sys.argv[1:]
os.mkfifo("/run/started")
fifo = os.open("/run/started", os.O_RDWR)


def started(name):
    """waits until this service runs."""
    said = b""
    while not said.endswith((name + "\n").encode()):
        if not select.select([fifo], [], [], 60)[0]:
            sys.exit(name + " does not come up")
        said += os.read(fifo, 4096)
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


pids = {}
for name in names:
    subprocess.run(["systemctl", "start", name], check=True)
    started(name)
    show = subprocess.run(["systemctl", "show", "--value", "--property=MainPID", name], check=True, capture_output=True)
    pids[name] = int(show.stdout)

syncs = []
disk = os.open("/var/lib/fettle/lab-sync", os.O_CREAT | os.O_WRONLY, 0o600)
os.posix_fallocate(disk, 0, 1 << 20)
os.fsync(disk)
for i in range(50):
    os.pwrite(disk, b"x" * 1000, i * 1000)
    begun = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    os.fdatasync(disk)
    syncs.append(time.clock_gettime_ns(time.CLOCK_MONOTONIC) - begun)
print(json.dumps({"Sync": sorted(syncs)[25]}), flush=True)

for name in names:
    time.sleep(0.1)  # apart, as faults come: nothing is waited for
    real = time.clock_gettime_ns(time.CLOCK_REALTIME)
    mono = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    os.kill(pids[name], signal.SIGKILL)
    print(json.dumps({"Unit": name, "Real": real, "Killed": mono, "Started": started(name)}), flush=True)
