// A shim beneath the gateway's file layer (LD_PRELOAD): writes and syncs of files under TIDEGATE_FAULT_DIR fail
// with the error in the file TIDEGATE_FAULT_TRIGGER while that file exists. Its content is "CALLS ERRNO", such as
// "sync 5" (EIO), "write 28" (ENOSPC) or "all 5"; "tables 28", by which what the engine flushes fails after a second; or "slow MILLISECONDS", by which each sync is delayed.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

// 0, or the error that a call of this kind has to fail with.
static int fault(const char *kind, int fd) {
    const char *trigger = getenv("TIDEGATE_FAULT_TRIGGER");
    const char *folder = getenv("TIDEGATE_FAULT_DIR");
    if (!trigger || !folder || access(trigger, F_OK) != 0) return 0;
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    if (strncmp(path, folder, strlen(folder)) != 0) return 0;
    FILE *file = fopen(trigger, "re");
    if (!file) return 0;
    char calls[16] = "";
    int error = 0;
    int read = fscanf(file, "%15s %d", calls, &error);
    fclose(file);
    if (read != 2) return 0;
    if (strcmp(calls, "slow") == 0) {
        if (strcmp(kind, "sync") == 0) usleep(1000u * (unsigned)error);
        return 0;
    }
    if (strcmp(calls, "tables") == 0) {
        if (strcmp(kind, "write") != 0 || !(strstr(path, "/tables/") || strstr(path, "/blobs/"))) return 0;
        sleep(1);
        return error;
    }
    return strcmp(calls, "all") == 0 || strcmp(calls, kind) == 0 ? error : 0;
}

#define REAL(name) ((__typeof__(name) *)dlsym(RTLD_NEXT, #name))
#define FAIL_IF(kind, fd)                \
    do {                                 \
        int saved = errno;               \
        int error = fault(kind, fd);     \
        errno = error ? error : saved;   \
        if (error) return -1;            \
    } while (0)

int fsync(int fd) { FAIL_IF("sync", fd); return REAL(fsync)(fd); }
int fdatasync(int fd) { FAIL_IF("sync", fd); return REAL(fdatasync)(fd); }
ssize_t write(int fd, const void *bytes, size_t count) { FAIL_IF("write", fd); return REAL(write)(fd, bytes, count); }
ssize_t writev(int fd, const struct iovec *parts, int count) { FAIL_IF("write", fd); return REAL(writev)(fd, parts, count); }
ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) { FAIL_IF("write", fd); return REAL(pwrite)(fd, bytes, count, at); }
ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) { FAIL_IF("write", fd); return REAL(pwrite64)(fd, bytes, count, at); }
