// A shim beneath the gateway's clock (LD_PRELOAD): the wall clock stands still at TIDEGATE_TEST_TIME (Unix seconds).
// What measures durations (the monotonic clock) goes on.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

#define REAL(name) ((__typeof__(name) *)dlsym(RTLD_NEXT, #name))

int clock_gettime(clockid_t clock, struct timespec *now) {
    const char *time = getenv("TIDEGATE_TEST_TIME");
    if (time && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        now->tv_sec = atoll(time);
        now->tv_nsec = 0;
        return 0;
    }
    return REAL(clock_gettime)(clock, now);
}
