/* tests/fuzz/target.h -- what a fuzz target is: libFuzzer's entry point. */
#ifndef WEIR_TESTS_FUZZ_TARGET_H
#define WEIR_TESTS_FUZZ_TARGET_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
	/* Always 0. A finding is an abort: CHECK(), or a sanitizer. */

#endif
