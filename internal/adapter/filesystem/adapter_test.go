package filesystem_test

import (
	"context"
	"strings"
	"testing"

	"fettle/internal/adapter/adaptertest"
	"fettle/internal/adapter/filesystem"
	"fettle/internal/fettle"
	"fettle/runbooks"
)

func TestAdapter(t *testing.T) {
	var h *host // of the question that is being asked
	fresh := func(t *testing.T) adaptertest.Rig {
		h = newHost(t)
		return h.rig()
	}
	asItIs := func(context.Context, *testing.T, adaptertest.Rig) []fettle.Generation { return nil }
	holds := func(_ context.Context, t *testing.T, _ adaptertest.Rig) []fettle.Generation {
		h.hold(t, holderUnit, 1<<20)
		return nil
	}
	// left counts what is left of the files that an action is about, from which
	// follows whether it took effect.
	none := func(there func(string) bool) func(context.Context) int {
		return func(ctx context.Context) int {
			for p := range tree(ctx, h.ports.Files, "/") {
				if there(p) {
					return 0
				}
			}
			return 1
		}
	}
	adaptertest.Run(t, adaptertest.Suite{
		New:   fresh,
		Books: adaptertest.Books(runbooks.FS(), filesystem.Adapter{}),
		Actions: []adaptertest.ActionCase{
			{
				Action: "filesystem.vacuum_journal", Target: varFS, Prepare: asItIs, Params: fettle.Facts{"keep_bytes": int64(journalLimit)},
				Times: none(func(p string) bool { return strings.HasSuffix(p, "/system@0.journal") }),
			},
			{
				Action: "filesystem.clean_package_cache", Target: varFS, Prepare: asItIs,
				Times: none(func(p string) bool { return strings.HasSuffix(p, ".deb") }),
			},
			{
				Action: "filesystem.compress_logs", Target: varFS, Prepare: asItIs,
				Times: none(func(p string) bool { return strings.HasSuffix(p, ".log.1") }),
			},
			{
				Action: "filesystem.ask_reopen", Target: varFS, Prepare: holds,
				Params: fettle.Facts{"unit": holderUnit, "pid": newHost(t).holder},
				Times:  func(context.Context) int { return h.asked[holderUnit] },
			},
		},
		Faults: []adaptertest.FaultCase{{Fault: "filesystem.fill", Target: varFS}, {Fault: "filesystem.hold_deleted", Target: varFS}},
		Hang: func(t *testing.T) (adaptertest.Rig, []fettle.Look) {
			r := fresh(t)
			f, _ := h.Filesystem("/var")
			f.Hung = true
			h.SetFilesystem(f)
			return r, []fettle.Look{{Subject: varFS, Probe: "filesystem.usage"}, {Subject: varFS, Probe: "filesystem.fill"}}
		},
		ReadOnly: func(t *testing.T) adaptertest.Rig {
			fresh(t)
			h.ports = denied(h.ports)
			return h.rig()
		},
	})
}
