package engine

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/shoalstore/shoal/core"
)

// nvme64 is the reflected polynomial of CRC-64/NVME.
const nvme64 = 0x9a6c9329ac4bc9b5

// combineCRC returns the CRC of a whole from those of its runs: appending n
// bytes to a message multiplies the CRC before them by x^8n modulo the
// polynomial (M. Adler's crc32_combine in zlib is the same linear map).
func combineCRC(algorithm string, sums [][]byte, sizes []int64) ([]byte, error) {
	var poly uint64
	width := 4
	switch algorithm {
	case "CRC32":
		poly = crc32.IEEE
	case "CRC32C":
		poly = crc32.Castagnoli
	case "CRC64NVME":
		poly, width = nvme64, 8
	default:
		return nil, fmt.Errorf("a %s checksum of the whole object cannot be made of those of its parts: %w", algorithm, core.ErrInvalid)
	}
	var total uint64
	for i, s := range sums {
		if len(s) != width {
			return nil, fmt.Errorf("checksum of %d bytes where %s has %d: %w", len(s), algorithm, width, core.ErrCorrupt)
		}
		var v uint64
		if width == 8 {
			v = binary.BigEndian.Uint64(s)
		} else {
			v = uint64(binary.BigEndian.Uint32(s))
		}
		total = shiftCRC(poly, width*8, total, sizes[i]) ^ v
	}
	if width == 8 {
		return binary.BigEndian.AppendUint64(nil, total), nil
	}
	return binary.BigEndian.AppendUint32(nil, uint32(total)), nil
}

// shiftCRC multiplies a reflected CRC by x^8n modulo the polynomial.
func shiftCRC(poly uint64, bits int, crc uint64, n int64) uint64 {
	one := uint64(1) << (bits - 1) // x^0
	power := one >> 8              // x^8
	for factor := power; n > 0; n >>= 1 {
		if n&1 != 0 {
			crc = mulCRC(poly, bits, crc, factor)
		}
		factor = mulCRC(poly, bits, factor, factor)
	}
	return crc
}

// mulCRC multiplies two reflected polynomials modulo a third.
func mulCRC(poly uint64, bits int, a, b uint64) uint64 {
	var p uint64
	for i := bits - 1; i >= 0; i-- {
		if a>>i&1 != 0 {
			p ^= b
		}
		if b&1 != 0 {
			b = b>>1 ^ poly
		} else {
			b >>= 1
		}
	}
	return p
}
