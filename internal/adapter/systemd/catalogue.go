package systemd

import (
	"time"

	"fettle/internal/fettle"
)

// The codes of the conditions.
const (
	UnitFailed     fettle.Code = "systemd.unit_failed"
	UnitStopped    fettle.Code = "systemd.unit_stopped"
	UnitMasked     fettle.Code = "systemd.unit_masked"
	UnitNotRunning fettle.Code = "systemd.unit_not_running"
	RestartLoop    fettle.Code = "systemd.restart_loop"
	UnitHung       fettle.Code = "systemd.unit_hung"
)

const (
	unitProbe   = "systemd.unit"
	healthProbe = "systemd.health"
)

// loopStarts is how many starts within ten minutes are a loop: systemd's own
// start limit is five, within ten seconds; a service that needs five starts in
// ten minutes is down as often as it is up.
const loopStarts = "5"

// Catalogue returns what the adapter knows and can do.
func Catalogue() fettle.Catalogue {
	return fettle.Catalogue{
		Adapter:    "systemd",
		Doc:        "Services of one machine, as its service manager sees them. Starts what failed; leaves alone what a person stopped or masked.",
		Versions:   "systemd 252",
		Kinds:      []fettle.KindSpec{{Kind: fettle.KindUnit, Doc: "HOST/NAME: a unit of the service manager"}},
		Conditions: conditions(),
		Probes:     probes(),
		Actions:    actions(),
		Faults: []fettle.FaultSpec{
			{Name: "systemd.kill", Target: fettle.KindUnit, Raises: UnitFailed, Doc: "SIGKILL to the main process. Reverted by starting the unit where it does not run."},
			{Name: "systemd.freeze", Target: fettle.KindUnit, Raises: UnitHung, Doc: "SIGSTOP to the main process: active, and answering nothing. Reverted by SIGCONT."},
		},
	}
}

func probes() []fettle.ProbeSpec {
	return []fettle.ProbeSpec{
		{
			Name: unitProbe, Kind: fettle.KindUnit, Interval: time.Minute, Timeout: 5 * time.Second, Told: true,
			Needs: "read access to the system bus",
			Doc:   "Every service that is enabled, was active since boot, or is named in should_run. Told by D-Bus signals; the poll is only a safety net.",
			Facts: []fettle.FactSpec{
				{Name: "load_state", Type: fettle.StringFact, Doc: "loaded, not-found, masked, bad-setting, error"},
				{Name: "active_state", Type: fettle.StringFact, Doc: "active, reloading, inactive, failed, activating, deactivating"},
				{Name: "sub_state", Type: fettle.StringFact, Doc: "running, dead, auto-restart and so on"},
				{Name: "unit_file_state", Type: fettle.StringFact, Doc: "enabled, disabled, static, masked"},
				{Name: "result", Type: fettle.StringFact, Doc: "why it ended: success, exit-code, signal, watchdog, start-limit-hit and so on"},
				{Name: "main_pid", Type: fettle.IntFact, Doc: "process number, 0 when none"},
				{Name: "exec_status", Type: fettle.IntFact, Doc: "exit status or signal of the last main process"},
				{Name: "n_restarts", Type: fettle.IntFact, Doc: "automatic restarts by the manager"},
				{Name: "restart", Type: fettle.StringFact, Doc: "the unit's own restart policy"},
				{Name: "invocation_id", Type: fettle.StringFact, Doc: "changes at every start"},
				{Name: "needs_daemon_reload", Type: fettle.BoolFact, Doc: "its file changed on disk since it was loaded"},
				{Name: "enabled", Type: fettle.BoolFact, Doc: "it should run: enabled, wanted by a target, or in should_run"},
				{Name: "was_active", Type: fettle.BoolFact, Doc: "it ran at some time since boot"},
				{Name: "stopped_by", Type: fettle.StringFact, Actor: true, Doc: "who asked for its stop: person, fettle, unknown; empty when nobody did"},
				{Name: "starts_10m", Type: fettle.IntFact, Doc: "starts seen in the last ten minutes"},
			},
		},
		{
			Name: healthProbe, Kind: fettle.KindUnit, Interval: 5 * time.Second, Timeout: 3 * time.Second,
			Doc: "Units with a health address in the configuration: does it answer?",
			Facts: []fettle.FactSpec{
				{Name: "answers", Type: fettle.BoolFact, Doc: "a TCP connection was accepted, or HTTP answered below 500, within the timeout"},
				{Name: "latency_ms", Type: fettle.IntFact, Doc: "until the answer"},
			},
		},
	}
}

func conditions() []fettle.ConditionSpec {
	return []fettle.ConditionSpec{
		{
			Code: UnitFailed, Title: "unit failed ({result})", Kind: fettle.KindUnit, Layer: fettle.HostLayer,
			Severity: fettle.Critical, Scope: fettle.HostScope, Probe: unitProbe,
			Raise: `self.active_state == "failed"`,
			Clear: `self.active_state in ["active", "reloading", "inactive"]`,
			Effects: []fettle.EffectOn{
				{Condition: UnitFailed, Path: "<uses", Surely: fettle.Sometimes, Within: time.Minute},
				{Condition: UnitNotRunning, Path: "<uses", Surely: fettle.Sometimes, Within: time.Minute},
			},
			CausedBy: filesystemFaults(),
			Doc:      "The main process ended in a way that its unit calls a failure, and the manager gave up on it. By hand: systemctl status UNIT.",
		},
		{
			Code: UnitStopped, Title: "unit was stopped on purpose", Kind: fettle.KindUnit, Layer: fettle.HostLayer,
			Severity: fettle.Notice, Scope: fettle.HostScope, Probe: unitProbe, Explains: true,
			Raise: `self.active_state == "inactive" && self.was_active && self.stopped_by in ["person", "unknown"]`,
			Effects: []fettle.EffectOn{
				{Condition: UnitFailed, Path: "<uses", Surely: fettle.Sometimes, Within: time.Minute},
				{Condition: UnitNotRunning, Path: "<uses", Surely: fettle.Sometimes, Within: time.Minute},
			},
			Doc: "Somebody, or another tool, asked the manager to stop it. It is reported and not started. By hand: journalctl -u UNIT.",
		},
		{
			Code: UnitMasked, Title: "unit is masked", Kind: fettle.KindUnit, Layer: fettle.HostLayer,
			Severity: fettle.Notice, Scope: fettle.HostScope, Probe: unitProbe, Explains: true,
			Raise: `self.load_state == "masked" && self.active_state != "active"`,
			Effects: []fettle.EffectOn{
				// systemctl mask --now is one act of one person.
				{Condition: UnitStopped, Path: fettle.Self, Surely: fettle.Sometimes, Within: time.Minute},
				{Condition: UnitFailed, Path: "<uses", Surely: fettle.Sometimes, Within: time.Minute},
				{Condition: UnitNotRunning, Path: "<uses", Surely: fettle.Sometimes, Within: time.Minute},
			},
			Doc: "Somebody decided that it must not run. By hand: systemctl is-enabled UNIT.",
		},
		{
			Code: UnitNotRunning, Title: "unit should run and does not", Kind: fettle.KindUnit, Layer: fettle.HostLayer,
			Severity: fettle.Warning, Scope: fettle.HostScope, Probe: unitProbe, Delay: 5 * time.Second,
			Raise: `self.enabled && self.load_state == "loaded" && self.active_state == "inactive" && ` +
				`self.result == "success" && self.stopped_by == "" && self.restart != "no"`,
			Doc: "It is enabled or named in should_run and restarts by its own policy, ended or was never started, and nobody stopped it. A unit that ends by design (Restart=no) is not meant. By hand: systemctl status UNIT.",
		},
		{
			Code: RestartLoop, Title: "unit restarts in a loop ({starts_10m} starts in ten minutes)", Kind: fettle.KindUnit, Layer: fettle.HostLayer,
			Severity: fettle.Critical, Scope: fettle.HostScope, Probe: unitProbe, ClearHold: 30 * time.Second,
			// A manager that restarted it three times by itself and then gave it up has
			// tried what a start could do; on a busy machine not each of its tries is
			// told, but it counts them.
			Raise: `self.starts_10m >= ` + loopStarts + ` || self.result == "start-limit-hit" || self.active_state == "failed" && self.n_restarts >= 3`,
			Clear: `self.starts_10m < ` + loopStarts + ` && self.result != "start-limit-hit" && !(self.active_state == "failed" && self.n_restarts >= 3)`,
			Effects: []fettle.EffectOn{
				{Condition: UnitFailed, Path: fettle.Self, Surely: fettle.Often, Within: time.Minute},
			},
			CausedBy:  filesystemFaults(),
			NotMended: "starting it once more is what the manager has tried already; the reason is in its log",
			Doc:       "It ends soon after every start. By hand: systemctl show -p NRestarts UNIT; journalctl -u UNIT.",
		},
		{
			Code: UnitHung, Title: "unit is active and answers nothing", Kind: fettle.KindUnit, Layer: fettle.HostLayer,
			Severity: fettle.Critical, Scope: fettle.HostScope, Probe: healthProbe, Delay: 10 * time.Second,
			Raise: `!self.answers`,
			Doc:   "The manager calls it active, but its health address gives no answer. By hand: connect to the address.",
			CausedBy: []fettle.EffectOn{
				{Condition: UnitFailed, Path: fettle.Self, Surely: fettle.Always, Within: 15 * time.Second},
				{Condition: UnitStopped, Path: fettle.Self, Surely: fettle.Always, Within: 15 * time.Second},
				{Condition: UnitMasked, Path: fettle.Self, Surely: fettle.Sometimes, Within: 15 * time.Second},
				{Condition: UnitNotRunning, Path: fettle.Self, Surely: fettle.Always, Within: 15 * time.Second},
			},
		},
	}
}

// filesystemFaults are the edges from the filesystems that a unit uses.
func filesystemFaults() []fettle.EffectOn {
	var edges []fettle.EffectOn
	for _, code := range []fettle.Code{"filesystem.full", "filesystem.inodes_full", "filesystem.read_only", "filesystem.shut_down"} {
		edges = append(edges, fettle.EffectOn{Condition: code, Path: ">uses", Surely: fettle.Sometimes, Within: 10 * time.Minute})
	}
	return edges
}

func actions() []fettle.ActionSpec {
	active := []fettle.EffectSpec{{Fact: "active_state", To: `"active"`}}
	inactive := []fettle.EffectSpec{{Fact: "active_state", To: `"inactive"`}}
	invocation := []fettle.ParamSpec{{Name: "invocation_id", Type: fettle.StringFact, Doc: "of the start that this step made"}}
	return []fettle.ActionSpec{
		{
			Name: "systemd.start", Version: 1, Target: fettle.KindUnit, Outputs: invocation, Risk: fettle.LowRisk,
			Scope: fettle.HostScope, Effects: active, Timeout: 90 * time.Second, Undo: true,
			Needs: "manage units (root, or polkit org.freedesktop.systemd1.manage-units)",
			Doc:   "Queues a start job and waits for its end. Undo stops the unit again.",
		},
		{
			Name: "systemd.stop", Version: 1, Target: fettle.KindUnit, Risk: fettle.MediumRisk, Scope: fettle.HostScope,
			Takes: []fettle.Taking{fettle.TakesCapacity}, Effects: inactive, Timeout: 90 * time.Second, Undo: true,
			Needs: "manage units", Doc: "Queues a stop job and waits for its end. Undo starts the unit again.",
		},
		{
			Name: "systemd.restart", Version: 1, Target: fettle.KindUnit, Outputs: invocation, Risk: fettle.LowRisk,
			Scope: fettle.HostScope, Takes: []fettle.Taking{fettle.TakesCapacity}, Effects: active, Timeout: 3 * time.Minute,
			NoUndo: "what the process held in memory is gone", Needs: "manage units",
			Doc: "Stops and starts the unit.",
		},
		{
			Name: "systemd.reset_failed", Version: 1, Target: fettle.KindUnit, Risk: fettle.LowRisk, Scope: fettle.HostScope,
			Effects: []fettle.EffectSpec{{Fact: "active_state", To: `"inactive"`}}, Timeout: 10 * time.Second,
			NoUndo: "a forgotten failure is still in the log", Needs: "manage units",
			Doc: "Forgets the failure and the start limit's count, so that it can be started.",
		},
		{
			Name: "systemd.reload", Version: 1, Target: fettle.KindUnit, Risk: fettle.LowRisk, Scope: fettle.HostScope,
			Timeout: 30 * time.Second, NoUndo: "a reread configuration cannot be unread", Needs: "manage units",
			Doc: "Asks the unit to reread its configuration.",
		},
	}
}
