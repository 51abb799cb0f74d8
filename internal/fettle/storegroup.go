package fettle

// StoreGroup says which quorum group holds the store of Fettle's own servers, where that
// is not a store of theirs alone. What decides must not be able to break what it decides
// by: nobody mends that group but people, whatever an adapter has found it to be.
type StoreGroup struct {
	Kind Kind   `json:"kind"` // of the group's subject, where an adapter finds it
	ID   string `json:"id"`   // QuorumGroup.ID; "": not known at present
}

// The facts by which a server says of itself which group holds its store. A server with
// a store of its own says neither.
const (
	FactStoreKind = "store_kind"
	FactStoreID   = "store_id"
)

// Facts are what a server says of itself.
func (g StoreGroup) Facts() Facts { return Facts{FactStoreKind: string(g.Kind), FactStoreID: g.ID} }

// StoreGroupOf reads what a server said; false where it said nothing.
func StoreGroupOf(f Facts) (StoreGroup, bool) {
	kind, ok := f.Str(FactStoreKind)
	id, _ := f.Str(FactStoreID)
	return StoreGroup{Kind(kind), id}, ok && kind != ""
}
