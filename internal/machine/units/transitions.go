package units

import (
	"syscall"
	"time"

	"fettle/internal/machine"
)

// Codes of a process's end, as in siginfo_t.si_code and ExecMainCode.
const (
	CLDExited = 1
	CLDKilled = 2
	CLDDumped = 3
)

// ExitExec is the exit status that systemd reports when a program could not be
// executed (systemd.exec(5), EXIT_EXEC).
const ExitExec = 203

// starting, running and the rest move u from one state to the next.
func starting(u *machine.Unit, invocation string, now time.Time) {
	u.ActiveState, u.SubState, u.StateChanged = "activating", "start", now
	u.Result, u.InvocationID, u.StoppedBy = "success", invocation, ""
	u.MainPID, u.ExecMainCode, u.ExecMainStatus = 0, 0, 0
}

func running(u *machine.Unit, now time.Time) {
	u.ActiveState, u.SubState, u.StateChanged = "active", "running", now
}

func stopping(u *machine.Unit, sub string, now time.Time) {
	if u.ActiveState != "deactivating" {
		u.StateChanged = now
	}
	u.ActiveState, u.SubState = "deactivating", sub
}

// ended records the end of the main process. failure is what the manager itself
// found wrong before that ("timeout"), which outranks how the process ended.
func ended(u *machine.Unit, code, status int, failure string, now time.Time) {
	u.MainPID, u.ExecMainCode, u.ExecMainStatus = 0, code, status
	u.Result = failure
	if failure == "" {
		u.Result = resultOf(code, status)
	}
	u.ActiveState, u.SubState, u.StateChanged = "inactive", "dead", now
	if u.Result != "success" {
		u.ActiveState, u.SubState = "failed", "failed"
	}
}

// resultOf names a process's end as systemd does: exit 0 and the signals that
// daemons are stopped with are a success (systemd.service(5), SuccessExitStatus=).
func resultOf(code, status int) string {
	switch {
	case code == CLDExited && status == 0:
		return "success"
	case code == CLDExited:
		return "exit-code"
	case code == CLDDumped:
		return "core-dump"
	}
	switch syscall.Signal(status) {
	case syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM, syscall.SIGPIPE:
		return "success"
	}
	return "signal"
}
