package world

// few is a table of what there is mostly little of: a list while it is short, with an
// index beside it once it is long. Most subjects have one observer and one edge, and a
// map for each would be most of what a world holds. The zero value is empty.
type few[K comparable, V any] struct {
	list  []entry[K, V]
	index map[K]int // where in the list; nil while that is short
}

type entry[K comparable, V any] struct {
	key   K
	value V
}

// short is how many entries are looked through one by one.
const short = 16

// at is where a key is; -1: it is not there.
func (f *few[K, V]) at(key K) int {
	if f.index != nil {
		if i, ok := f.index[key]; ok {
			return i
		}
		return -1
	}
	for i := range f.list {
		if f.list[i].key == key {
			return i
		}
	}
	return -1
}

func (f *few[K, V]) len() int { return len(f.list) }

// get returns the value of a key, and whether there is one. The pointer is good until
// the table is changed.
func (f *few[K, V]) get(key K) (*V, bool) {
	i := f.at(key)
	if i < 0 {
		return nil, false
	}
	return &f.list[i].value, true
}

// ensure returns the value of a key, the zero value where there was none. The pointer
// is good until the table is changed.
func (f *few[K, V]) ensure(key K) *V {
	i := f.at(key)
	if i < 0 {
		i = len(f.list)
		f.list = append(f.list, entry[K, V]{key: key})
		switch {
		case f.index != nil:
			f.index[key] = i
		case i >= short:
			f.index = make(map[K]int, i+1)
			for j := range f.list {
				f.index[f.list[j].key] = j
			}
		}
	}
	return &f.list[i].value
}

// remove forgets a key. The others may stand in another order then.
func (f *few[K, V]) remove(key K) {
	i := f.at(key)
	if i < 0 {
		return
	}
	last := len(f.list) - 1
	f.list[i] = f.list[last]
	f.list[last] = entry[K, V]{} // which lets go of what it pointed to
	f.list = f.list[:last]
	switch {
	case last == 0:
		f.list, f.index = nil, nil
	case f.index != nil:
		delete(f.index, key)
		if i < last {
			f.index[f.list[i].key] = i
		}
	}
}
