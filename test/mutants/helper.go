package main

// helperImports are the packages that helper uses.
var helperImports = []string{"os", "strconv", "syscall"}

// helper is put into each package whose code is changed. %s is its name.
const helper = `package %s

import (
	"os"
	"strconv"
	"syscall"
)

// mutantActive is the mutant that is switched on, 0: none.
var mutantActive, mutantHits = mutantStart()

func mutantStart() (int, []byte) {
	n, _ := strconv.Atoi(os.Getenv("` + envMutant + `"))
	f, err := os.OpenFile(os.Getenv("` + envHits + `"), os.O_RDWR, 0)
	if err != nil {
		return n, nil
	}
	defer f.Close()
	s, err := f.Stat()
	if err != nil {
		return n, nil
	}
	b, err := syscall.Mmap(int(f.Fd()), 0, int(s.Size()), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		panic(err)
	}
	return n, b
}

func mutant(id int) bool {
	if mutantHits != nil {
		mutantHits[id] = 1
	}
	return mutantActive == id
}

type mutantInt interface {
	~int | ~int8 | ~int16 | ~int32 | ~int64 | ~uint | ~uint8 | ~uint16 | ~uint32 | ~uint64 | ~uintptr
}

type mutantNumber interface {
	mutantInt | ~float32 | ~float64
}

func mutantConstant[T mutantInt](id int, v T) T {
	if mutant(id) {
		return v + 1
	}
	if mutant(id + 1) {
		return v - 1
	}
	return v
}

func mutantZero[T any](id int, v T) T {
	if mutant(id) {
		var zero T
		return zero
	}
	return v
}

func mutantAdd[T mutantNumber](id int, x, y T) T {
	if mutant(id) {
		return x - y
	}
	return x + y
}

func mutantSub[T mutantNumber](id int, x, y T) T {
	if mutant(id) {
		return x + y
	}
	return x - y
}

func mutantMul[T mutantNumber](id int, x, y T) T {
	if mutant(id) {
		return x / y
	}
	return x * y
}

func mutantQuo[T mutantNumber](id int, x, y T) T {
	if mutant(id) {
		return x * y
	}
	return x / y
}

func mutantRem[T mutantInt](id int, x, y T) T {
	if mutant(id) {
		return x * y
	}
	return x %% y
}

func mutantAnd[T mutantInt](id int, x, y T) T {
	if mutant(id) {
		return x | y
	}
	return x & y
}

func mutantOr[T mutantInt](id int, x, y T) T {
	if mutant(id) {
		return x & y
	}
	return x | y
}

func mutantXor[T mutantInt](id int, x, y T) T {
	if mutant(id) {
		return x & y
	}
	return x ^ y
}

func mutantAndNot[T mutantInt](id int, x, y T) T {
	if mutant(id) {
		return x & y
	}
	return x &^ y
}

func mutantShl[T, U mutantInt](id int, x T, n U) T {
	if mutant(id) {
		return x >> n
	}
	return x << n
}

func mutantShr[T, U mutantInt](id int, x T, n U) T {
	if mutant(id) {
		return x << n
	}
	return x >> n
}
`

const (
	envMutant = "THURWARD_MUTANT"
	envHits   = "THURWARD_MUTANT_HITS"
)
