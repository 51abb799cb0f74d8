package filesystem

import (
	"time"

	"fettle/internal/fettle"
)

// The codes of the conditions.
const (
	Full       fettle.Code = "filesystem.full"
	NearlyFull fettle.Code = "filesystem.nearly_full"
	InodesFull fettle.Code = "filesystem.inodes_full"
	ReadOnly   fettle.Code = "filesystem.read_only"
	ShutDown   fettle.Code = "filesystem.shut_down"
)

const (
	usageProbe = "filesystem.usage"
	fillProbe  = "filesystem.fill"
)

// Catalogue returns what the adapter knows and can do.
func Catalogue() fettle.Catalogue {
	return fettle.Catalogue{
		Adapter:  "filesystem",
		Doc:      "Local filesystems of one machine: full, out of inodes, read-only, shut down. Lets go what is declared disposable; never deletes what it does not know.",
		Versions: "ext4 on kernel 6.18; xfs and btrfs are looked at alike, and were not broken yet",
		Kinds:    []fettle.KindSpec{{Kind: fettle.KindFilesystem, Doc: "HOST/MOUNTPOINT: a mounted local filesystem, at the first place where its root is mounted"}},
		Conditions: []fettle.ConditionSpec{
			{
				Code: Full, Title: "filesystem is full ({used_permille} ‰ of its bytes)", Kind: fettle.KindFilesystem,
				Layer: fettle.HostLayer, Severity: fettle.Critical, Scope: fettle.HostScope, Probe: usageProbe,
				// 990 ‰: what is left is below what one journal file or one
				// write-ahead log segment needs. It clears below 970, so that a
				// repair that frees next to nothing does not count as one.
				Raise: `self.used_permille >= 990 || self.write_error == "ENOSPC" && self.inodes_used_permille < 990`,
				Clear: `self.used_permille < 970 && self.write_error != "ENOSPC"`,
				Doc:   "No room for an ordinary user's next write. By hand: df MOUNTPOINT.",
			},
			{
				Code: NearlyFull, Title: "filesystem is nearly full ({used_permille} ‰ of its bytes)", Kind: fettle.KindFilesystem,
				Layer: fettle.HostLayer, Severity: fettle.Notice, Scope: fettle.HostScope, Probe: usageProbe, Delay: time.Minute,
				Raise:     `self.used_permille >= 900`,
				Clear:     `self.used_permille < 890`,
				NotMended: "there is still room; what fills it is shown with filesystem.fill",
				CausedBy:  []fettle.EffectOn{{Condition: Full, Path: fettle.Self, Surely: fettle.Always, Within: 2 * time.Minute}},
				Doc:       "Somebody should look at what fills it. By hand: df MOUNTPOINT.",
			},
			{
				Code: InodesFull, Title: "filesystem has no inodes left ({inodes_used_permille} ‰)", Kind: fettle.KindFilesystem,
				Layer: fettle.HostLayer, Severity: fettle.Critical, Scope: fettle.HostScope, Probe: usageProbe,
				Raise:     `self.inodes_used_permille >= 990`,
				Clear:     `self.inodes_used_permille < 970`,
				NotMended: "which of so many small files may go, only their owner knows",
				Doc:       "Creating a file fails although there are bytes left. By hand: df -i MOUNTPOINT.",
			},
			{
				Code: ReadOnly, Title: "filesystem became read-only", Kind: fettle.KindFilesystem,
				Layer: fettle.HostLayer, Severity: fettle.Critical, Scope: fettle.HostScope, Probe: usageProbe,
				Raise:     `self.read_only`,
				NotMended: "it may be damaged: it must be checked with its users stopped, which comes with a later release",
				Doc:       "The kernel stopped writing after an error. Options may still say rw; emergency_ro among the filesystem's own options tells. By hand: findmnt -o FS-OPTIONS MOUNTPOINT; dmesg.",
			},
			{
				Code: ShutDown, Title: "filesystem gives input/output errors", Kind: fettle.KindFilesystem,
				Layer: fettle.HostLayer, Severity: fettle.Critical, Scope: fettle.HostScope, Probe: usageProbe,
				Raise:     `self.write_error == "EIO" && !self.read_only`,
				Clear:     `self.write_error == ""`,
				NotMended: "its disk or the filesystem itself is broken: it must be unmounted and mounted again, which comes with a later release",
				Doc:       "Every write fails. By hand: touch a file; dmesg.",
			},
		},
		Probes:  probes(),
		Actions: actions(),
		Faults: []fettle.FaultSpec{
			{Name: "filesystem.fill", Target: fettle.KindFilesystem, Raises: Full, Doc: "A file of Fettle's own that takes what is left. Reverted by removing it."},
			{
				Name: "filesystem.hold_deleted", Target: fettle.KindFilesystem, Raises: Full,
				Params: []fettle.ParamSpec{{Name: "bytes", Type: fettle.IntFact, Doc: "how much it holds; left out: all that is left, which is what raises the condition"}},
				Doc:    "A file of Fettle's own that has no name any more and that Fettle's own process holds open, as a daemon holds a log that was deleted under it: df shows it and du does not. Reverted by closing it, which the kernel also does when Fettle ends.",
			},
		},
	}
}

func probes() []fettle.ProbeSpec {
	return []fettle.ProbeSpec{
		{
			Name: usageProbe, Kind: fettle.KindFilesystem, Interval: 5 * time.Second, Timeout: 4 * time.Second, Told: true,
			Doc: "statfs(2), mountinfo(5) and the kernel's error counter of each local filesystem; told of mounts, polled for usage. A write is tried only where something hints at trouble.",
			Facts: []fettle.FactSpec{
				{Name: "type", Type: fettle.StringFact, Doc: "ext4, xfs and so on"},
				{Name: "source", Type: fettle.StringFact, Doc: "device"},
				{Name: "size_bytes", Type: fettle.IntFact, Doc: "bytes in all"},
				{Name: "avail_bytes", Type: fettle.IntFact, Doc: "bytes that an ordinary user can still write"},
				{Name: "free_bytes", Type: fettle.IntFact, Doc: "bytes that are free, reserved ones included"},
				{Name: "used_permille", Type: fettle.IntFact, Doc: "used / (used + avail), as df counts, in per mille, rounded up"},
				{Name: "inodes", Type: fettle.IntFact, Doc: "inodes in all; 0 where there is no limit"},
				{Name: "inodes_free", Type: fettle.IntFact, Doc: "inodes left"},
				{Name: "inodes_used_permille", Type: fettle.IntFact, Doc: "per mille; 0 where there is no limit"},
				{Name: "read_only", Type: fettle.BoolFact, Doc: "it is read-only, and /etc/fstab does not want it so"},
				{Name: "write_error", Type: fettle.StringFact, Doc: "ENOSPC, EROFS, EIO, EDQUOT or other: what a writer gets; empty: a write was not tried or went well"},
				{Name: "errors_count", Type: fettle.IntFact, Doc: "the filesystem's own error counter; -1: it has none"},
			},
		},
		{
			Name: fillProbe, Kind: fettle.KindFilesystem, Interval: 30 * time.Second, Timeout: 10 * time.Second,
			Needs: "root, to see other users' files and open descriptors",
			Doc:   "What fills a filesystem that is at least 900 ‰ full; of others it says nothing, so that it costs nothing.",
			Facts: []fettle.FactSpec{
				{Name: "journal_bytes", Type: fettle.IntFact, Doc: "of the system journal on this filesystem"},
				{Name: "journal_limit_bytes", Type: fettle.IntFact, Doc: "what the journal may use by its own configuration, journald.conf(5) and its drop-ins; absent where they cannot be read or understood"},
				{Name: "package_cache_bytes", Type: fettle.IntFact, Doc: "of downloaded packages that can be fetched again"},
				{Name: "rotated_log_bytes", Type: fettle.IntFact, Doc: "of logs that were rotated and not compressed"},
				{Name: "deleted_open_bytes", Type: fettle.IntFact, Doc: "of files without a name that somebody holds open"},
				{Name: "deleted_holder", Type: fettle.StringFact, Doc: "the unit that holds most of them, or its command where it is in no unit"},
				{Name: "deleted_holder_pid", Type: fettle.IntFact, Doc: "its process number"},
				{Name: "deleted_path", Type: fettle.StringFact, Doc: "what the largest of them was called"},
				{Name: "biggest", Type: fettle.ListFact, Doc: "the largest files that are of no disposable kind, as BYTES PATH"},
			},
		},
	}
}

func actions() []fettle.ActionSpec {
	freed := []fettle.ParamSpec{{Name: "freed_bytes", Type: fettle.IntFact, Doc: "what was let go"}}
	takes := []fettle.Taking{fettle.TakesData}
	return []fettle.ActionSpec{
		{
			Name: "filesystem.vacuum_journal", Version: 1, Target: fettle.KindFilesystem, Outputs: freed, Risk: fettle.LowRisk,
			Params: []fettle.ParamSpec{{Name: "keep_bytes", Type: fettle.IntFact, Required: true, Doc: "how much of the journal stays"}},
			Scope:  fettle.HostScope, Takes: takes, Disposes: "journal-past-limit", Timeout: time.Minute,
			NoUndo: "journal entries past their limit are gone", Needs: "root",
			Doc: "journalctl --rotate, then --vacuum-size. Refused where keep_bytes is less than the journal may use by its own configuration. The receipt lists the files that went.",
		},
		{
			Name: "filesystem.clean_package_cache", Version: 1, Target: fettle.KindFilesystem, Outputs: freed, Risk: fettle.LowRisk,
			Scope: fettle.HostScope, Takes: takes, Disposes: "package-cache", Timeout: time.Minute,
			NoUndo: "packages are fetched again when they are needed", Needs: "root",
			Doc: "Removes /var/cache/apt/archives/*.deb, as apt-get clean does. Refused while packages are being installed. The receipt lists them.",
		},
		{
			Name: "filesystem.compress_logs", Version: 1, Target: fettle.KindFilesystem, Outputs: freed, Risk: fettle.LowRisk,
			Scope: fettle.HostScope, Takes: takes, Disposes: "rotated-logs", Timeout: 5 * time.Minute,
			NoUndo: "the compressed copy holds everything; gunzip brings it back", Needs: "root",
			Doc: "Compresses logs that were rotated already (NAME.1, NAME.2 … beside NAME), one after the other, smallest first, each verified before the original goes. One that is still being written to stays.",
		},
		{
			Name: "filesystem.ask_reopen", Version: 1, Target: fettle.KindFilesystem, Risk: fettle.LowRisk,
			Params: []fettle.ParamSpec{
				{Name: "unit", Type: fettle.StringFact, Required: true, Doc: "the unit that holds the deleted file"},
				{Name: "pid", Type: fettle.IntFact, Required: true, Doc: "its process"},
			},
			Scope: fettle.HostScope, Timeout: 30 * time.Second, NoUndo: "a file that was closed cannot be unclosed", Needs: "root",
			Doc: "Asks the holder to reopen its files: by the signal that it is known to reopen its logs on, else by its unit's reload. It never kills, and it asks nobody who could not understand.",
		},
	}
}
