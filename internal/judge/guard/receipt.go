package guard

import (
	"maps"
	"slices"
	"time"

	"fettle/internal/fettle"
)

const defaultWindow = time.Hour

func sortedNames(f fettle.Facts) []string { return slices.Sorted(maps.Keys(f)) }

// CheckReceipts (S5) judges a step that was done: one that took data away must
// have a receipt for it, and what was set aside must say how it is put back.
func CheckReceipts(step fettle.Step, r fettle.Result) fettle.Verdict {
	v := allow("everything that gave way has a receipt")
	v.Guard, v.Invariant = "receipts", "S5"
	if !has(step.Takes, fettle.TakesData) {
		return v
	}
	for _, rc := range r.Receipts {
		if rc.Where != "" && rc.Back == "" {
			v.Allow, v.Why, v.Lifts = false, "the receipt for "+rc.What+" does not say how it is put back", "a person, who looks at "+rc.Where
			return v
		}
	}
	if len(r.Receipts) == 0 {
		v.Allow, v.Why, v.Lifts = false, "the step took data away and gave no receipt", "a person, who looks what became of it"
	}
	return v
}
