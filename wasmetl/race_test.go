//go:build race

package wasmetl_test

// raceDetector says that the tests are watched for races.
const raceDetector = true
