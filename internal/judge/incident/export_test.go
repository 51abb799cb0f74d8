package incident

// Waive makes this mind, and all that are made from it with Fresh, take the refusals
// of some guards for leave.
func (m *Mind) Waive(guards ...string) {
	m.waived = map[string]bool{}
	for _, g := range guards {
		m.waived[g] = true
	}
}

// LookAtAll makes this mind, and all that are made from it with Fresh, look at every open
// incident with every input.
func (m *Mind) LookAtAll() { m.thorough = true }
