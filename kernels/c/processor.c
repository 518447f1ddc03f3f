/* Which instruction sets this processor and its operating system can run. */
#define _GNU_SOURCE /* syscall */
#include "threads.h"

#if defined __x86_64__ || defined __i386__
#include <cpuid.h>

static int has_bit(unsigned subleaf, int output, int bit) {
    unsigned out[4];
    return __get_cpuid_count(7, subleaf, &out[0], &out[1], &out[2], &out[3]) && out[output] >> bit & 1;
}

static int has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}

static int has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("bmi2");
}

static int has_vbmi2(void) { return has_avx512() && has_bit(0, 2, 1) && has_bit(0, 2, 6); }

/* Tiles are so large that a process must ask for room to save them in; the system gives it, or does not know of it. */
#if defined __linux__ && defined __x86_64__
#include <sys/syscall.h>
#include <unistd.h>
enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 }; /* ARCH_REQ_XCOMP_PERM, XFEATURE_XTILE_DATA */
static int may_use_tiles(void) { return !syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA); }
#else
static int may_use_tiles(void) { return 0; }
#endif

int can_run(enum instruction_set set) {
    __builtin_cpu_init();
    switch (set) {
    case BASELINE: return 1;
    case AVX2: return has_avx2();
    case AVX2VNNI: return has_avx2() && has_bit(1, 0, 4);
    case AVX512: return has_avx512();
    case AVX512VBMI2: return has_vbmi2();
    case AMX: return has_vbmi2() && has_bit(0, 3, 24) && has_bit(0, 3, 25) && may_use_tiles();
    default: return 0;
    }
}
#elif defined __aarch64__
#ifdef __linux__
#include <sys/auxv.h>
static int has_dotprod(void) { return getauxval(AT_HWCAP) >> 20 & 1; } /* HWCAP_ASIMDDP */
#elif defined __APPLE__
static int has_dotprod(void) { return 1; } /* since the first of them for computers */
#else
static int has_dotprod(void) { return 0; }
#endif

int can_run(enum instruction_set set) { return set == BASELINE || (set == DOTPROD && has_dotprod()); }
#else
int can_run(enum instruction_set set) { return set == BASELINE; }
#endif
