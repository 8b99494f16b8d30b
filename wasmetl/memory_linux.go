package wasmetl

import "syscall"

// mapNoReserve keeps mappings that are not filled out of the kernel's account.
const mapNoReserve = syscall.MAP_NORESERVE
