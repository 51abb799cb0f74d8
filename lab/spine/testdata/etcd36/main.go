// Command etcd36 is an etcd server of the line before the one that this
// repository links: the lab runs both in one cluster. It is a module of its own,
// since one module cannot have two versions of another.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
