//go:build race

package disktest

// raceEnabled makes the suite do less of what is slow under the race detector.
const raceEnabled = true
