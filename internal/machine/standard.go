package machine

// StandardPath is where programs are looked up, and the PATH that they get: the
// directories of a Debian root login, never the current one.
const StandardPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
