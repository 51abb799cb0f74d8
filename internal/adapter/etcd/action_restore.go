package etcd

import (
	"context"

	"fettle/internal/fettle"
)

// restore is etcd.restore.
type restore struct{ *cluster }

const opRestore = "etcd.restore"

func (a restore) Preview(ctx context.Context, step fettle.Step) (fettle.Preview, error) {
	return fettle.Preview{}, nil
}
func (a restore) Apply(ctx context.Context, d fettle.Dispatch) (fettle.Result, error) {
	return fettle.Result{}, nil
}
func (a restore) Recover(ctx context.Context, d fettle.Dispatch) (fettle.Fate, fettle.Result, error) {
	return fettle.UnknownFate, fettle.Result{}, nil
}
func (a restore) Undo(_ context.Context, d fettle.Dispatch) (fettle.Result, error) {
	return forwardOnly(opRestore, d.Step.Target)
}
