// Package clock sees how far the clock of one machine is from the time that it takes
// from others, and whom it takes it from: as its chronyd tells it (chronyc -c, the
// form for programs).
//
// It sees a clock that is off or follows nobody, and, over all machines of a fleet,
// a time source that most of them call wrong or cannot reach: a subject that they
// share, so that what follows from it is one trouble.
//
// It mends nothing. Which sources are to be trusted is for a person to say, and a
// clock that is stepped under databases does more harm than one that is slewed: that
// is what chronyd is there for. It never changes chronyd's configuration, and looks
// for nothing where no chronyd runs; systemd-timesyncd and ntpd are not read.
//
// Tested with chrony 4.3 (Debian 12).
package clock
