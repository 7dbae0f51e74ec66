/* Makes calls on files below one folder fail, or take long, as a sick disk does. Preloaded into larderd
   by tests/e2e/disk.rs, which writes the illness of the moment into a file. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

enum illness { NONE, FULL, READ_ONLY, FAILING, SLOW };

static enum illness illness(void) {
    const char *path = getenv("SICK_DISK_ILLNESS");
    char text[16] = "";
    int fd = path ? syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0) return NONE;
    syscall(SYS_read, fd, text, sizeof text - 1);
    syscall(SYS_close, fd);
    return text[0] == 'f' ? FULL : text[0] == 'r' ? READ_ONLY : text[0] == 'e' ? FAILING
         : text[0] == 's' ? SLOW : NONE;
}

static int is_on_disk(const char *path) {
    const char *folder = getenv("SICK_DISK_FOLDER");
    return folder && path && !strncmp(path, folder, strlen(folder));
}

static int holds(int fd) {
    char name[64], path[4096];
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(name, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return is_on_disk(path);
}

/* What a call on this file fails with; 0 if it may go on, perhaps after a while. */
static int fate(int fd, int writes) {
    enum illness now = illness();
    if (now == NONE || !holds(fd)) return 0;
    struct timespec while_it_thinks = {5, 0};
    switch (now) {
    case FULL: return writes ? ENOSPC : 0;
    case READ_ONLY: return writes ? EROFS : 0;
    case FAILING: return EIO;
    case SLOW: nanosleep(&while_it_thinks, NULL); return 0;
    default: return 0;
    }
}

#define REAL(name) __typeof__(&name) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define FAIL_IF_FATED(fd, writes) \
    do { int error = fate(fd, writes); if (error) { errno = error; return -1; } } while (0)

ssize_t write(int fd, const void *data, size_t size) {
    REAL(write); FAIL_IF_FATED(fd, 1); return real(fd, data, size);
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    REAL(pwrite); FAIL_IF_FATED(fd, 1); return real(fd, data, size, at);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    REAL(pwrite64); FAIL_IF_FATED(fd, 1); return real(fd, data, size, at);
}
ssize_t pread(int fd, void *data, size_t size, off_t at) {
    REAL(pread); FAIL_IF_FATED(fd, 0); return real(fd, data, size, at);
}
ssize_t pread64(int fd, void *data, size_t size, off64_t at) {
    REAL(pread64); FAIL_IF_FATED(fd, 0); return real(fd, data, size, at);
}
int fsync(int fd) { REAL(fsync); FAIL_IF_FATED(fd, 1); return real(fd); }
int fdatasync(int fd) { REAL(fdatasync); FAIL_IF_FATED(fd, 1); return real(fd); }
int ftruncate(int fd, off_t size) { REAL(ftruncate); FAIL_IF_FATED(fd, 1); return real(fd, size); }
int ftruncate64(int fd, off64_t size) {
    REAL(ftruncate64); FAIL_IF_FATED(fd, 1); return real(fd, size);
}
int posix_fallocate(int fd, off_t at, off_t size) {
    REAL(posix_fallocate); int error = fate(fd, 1); return error ? error : real(fd, at, size);
}
int posix_fallocate64(int fd, off64_t at, off64_t size) {
    REAL(posix_fallocate64); int error = fate(fd, 1); return error ? error : real(fd, at, size);
}

static int refuses_to_open(const char *path, int flags) {
    if (illness() != READ_ONLY || !is_on_disk(path)) return 0;
    return (flags & O_ACCMODE) != O_RDONLY || (flags & O_CREAT);
}
#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        REAL(name); \
        va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, mode_t); va_end(rest); \
        if (refuses_to_open(path, flags)) { errno = EROFS; return -1; } \
        return real(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)
