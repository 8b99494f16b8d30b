//go:build !linux

package wasmetl

const mapNoReserve = 0
