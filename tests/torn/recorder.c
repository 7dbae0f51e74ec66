// Records what a program does to the files below a folder: preloaded (LD_PRELOAD), it stands between the
// program and the C library, carries out each call, and appends it to a log. Changes nothing.
//
// LARDER_RECORD_ROOT names the folder, LARDER_RECORD_LOG the log. A record is a `struct record`, then
// the path, then what was written (or the new path of a rename). One lock keeps the log in the order in
// which things happened.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum op { CREATE = 1, WRITE, TRUNCATE, SYNC, SYNC_FOLDER, RENAME, UNLINK, MKDIR, RMDIR, LINK, ALLOCATE };

struct record {
    uint64_t nanoseconds; // since 1970
    uint64_t op;
    uint64_t inode;
    uint64_t offset; // or the new length
    uint64_t path_bytes;
    uint64_t data_bytes;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int log_fd = -1;
static char root[PATH_MAX];
static size_t root_bytes;

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = dlsym(RTLD_NEXT, name)

__attribute__((constructor)) static void start(void) {
    const char *folder = getenv("LARDER_RECORD_ROOT"), *log = getenv("LARDER_RECORD_LOG");
    if (!folder || !log) return;
    snprintf(root, sizeof root, "%s", folder);
    root_bytes = strlen(root);
    log_fd = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log_fd < 0) abort();
}

static void append(enum op op, uint64_t inode, uint64_t offset, const char *path, const void *data,
                   size_t data_bytes) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    struct record head = {now.tv_sec * 1000000000ull + now.tv_nsec, op, inode, offset, strlen(path),
                          data_bytes};
    struct iovec parts[] = {{&head, sizeof head}, {(void *)path, head.path_bytes},
                            {(void *)data, data_bytes}};
    size_t all = sizeof head + head.path_bytes + data_bytes;
    if (syscall(SYS_writev, log_fd, parts, 3) != (long)all) abort();
}

static int is_below(const char *path) {
    return log_fd >= 0 && !strncmp(path, root, root_bytes) &&
           (path[root_bytes] == '/' || !path[root_bytes]);
}

// The absolute path; false for what is elsewhere.
static int resolve(int folder, const char *path, char *out) {
    if (log_fd < 0) return 0;
    if (path[0] == '/') {
        snprintf(out, PATH_MAX, "%s", path);
        return is_below(out);
    }
    char link[64], at[PATH_MAX];
    if (folder == AT_FDCWD) {
        if (!getcwd(at, sizeof at)) return 0;
    } else {
        snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        ssize_t bytes = readlink(link, at, sizeof at - 1);
        if (bytes < 0) return 0;
        at[bytes] = 0;
    }
    if (snprintf(out, PATH_MAX, "%s/%s", at, path) >= PATH_MAX) abort();
    return is_below(out);
}

// Of an open file or folder below the root.
static int identify(int fd, char *path, struct stat *found) {
    if (log_fd < 0 || fstat(fd, found) || !(S_ISREG(found->st_mode) || S_ISDIR(found->st_mode)))
        return 0;
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t bytes = readlink(link, path, PATH_MAX - 1);
    if (bytes < 0) return 0;
    path[bytes] = 0;
    return is_below(path);
}

static int opened(int folder, const char *path, int flags, mode_t mode) {
    char where[PATH_MAX];
    struct stat before, after;
    if (!(flags & (O_CREAT | O_TRUNC)) || (flags & O_TMPFILE) == O_TMPFILE ||
        !resolve(folder, path, where))
        return syscall(SYS_openat, folder, path, flags, mode);
    pthread_mutex_lock(&lock);
    int there = !lstat(where, &before);
    int fd = syscall(SYS_openat, folder, path, flags, mode);
    int error = errno;
    if (fd >= 0 && !fstat(fd, &after) && S_ISREG(after.st_mode)) {
        if (!there) append(CREATE, after.st_ino, 0, where, 0, 0);
        else if ((flags & O_TRUNC) && before.st_size) append(TRUNCATE, after.st_ino, 0, where, 0, 0);
    }
    pthread_mutex_unlock(&lock);
    errno = error;
    return fd;
}

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        va_list more; \
        va_start(more, flags); \
        mode_t mode = va_arg(more, mode_t); \
        va_end(more); \
        return opened(AT_FDCWD, path, flags, mode); \
    }
#define OPENAT(name) \
    int name(int folder, const char *path, int flags, ...) { \
        va_list more; \
        va_start(more, flags); \
        mode_t mode = va_arg(more, mode_t); \
        va_end(more); \
        return opened(folder, path, flags, mode); \
    }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

// A call on an open file: carried out and recorded, or only carried out.
#define ON_FILE(fd, call, record) \
    char path[PATH_MAX]; \
    struct stat found; \
    if (!identify(fd, path, &found)) return call; \
    pthread_mutex_lock(&lock); \
    __auto_type result = call; \
    int error = errno; \
    record; \
    pthread_mutex_unlock(&lock); \
    errno = error; \
    return result

#define WROTE(at) if (result > 0) append(WRITE, found.st_ino, at, path, data, result)

#define PWRITE(name) \
    ssize_t name(int fd, const void *data, size_t bytes, off_t offset) { \
        REAL(ssize_t, #name, int, const void *, size_t, off_t); \
        ON_FILE(fd, real(fd, data, bytes, offset), WROTE(offset)); \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

ssize_t write(int fd, const void *data, size_t bytes) {
    REAL(ssize_t, "write", int, const void *, size_t);
    ON_FILE(fd, real(fd, data, bytes), WROTE(lseek(fd, 0, SEEK_CUR) - result));
}

#define TRUNCATED(name) \
    int name(int fd, off_t length) { \
        REAL(int, #name, int, off_t); \
        ON_FILE(fd, real(fd, length), \
                if (!result) append(TRUNCATE, found.st_ino, length, path, 0, 0)); \
    }
TRUNCATED(ftruncate)
TRUNCATED(ftruncate64)

#define ALLOCATED(name) \
    int name(int fd, off_t offset, off_t bytes) { \
        REAL(int, #name, int, off_t, off_t); \
        ON_FILE(fd, real(fd, offset, bytes), \
                if (!result) append(ALLOCATE, found.st_ino, offset + bytes, path, 0, 0)); \
    }
ALLOCATED(posix_fallocate)
ALLOCATED(posix_fallocate64)

#define SYNCED(name) \
    int name(int fd) { \
        REAL(int, #name, int); \
        ON_FILE(fd, real(fd), \
                if (!result) append(S_ISDIR(found.st_mode) ? SYNC_FOLDER : SYNC, found.st_ino, 0, path, 0, 0)); \
    }
SYNCED(fsync)
SYNCED(fdatasync)

// A change of names: `where` is the first path, `to` the second if there is one.
static int renamed(int folder, const char *from, int other, const char *path, long call) {
    char where[PATH_MAX], to[PATH_MAX];
    int ours = resolve(folder, from, where) & resolve(other, path, to);
    if (ours) pthread_mutex_lock(&lock);
    int result = syscall(call, folder, from, other, path, 0);
    int error = errno;
    if (ours && !result) append(call == SYS_linkat ? LINK : RENAME, 0, 0, where, to, strlen(to));
    if (ours) pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

int rename(const char *from, const char *to) {
    return renamed(AT_FDCWD, from, AT_FDCWD, to, SYS_renameat2);
}
int renameat(int folder, const char *from, int other, const char *to) {
    return renamed(folder, from, other, to, SYS_renameat2);
}
int link(const char *from, const char *to) {
    return renamed(AT_FDCWD, from, AT_FDCWD, to, SYS_linkat);
}

static int removed(int folder, const char *path, int flags) {
    char where[PATH_MAX];
    int ours = resolve(folder, path, where);
    if (ours) pthread_mutex_lock(&lock);
    int result = syscall(SYS_unlinkat, folder, path, flags);
    int error = errno;
    if (ours && !result) append(flags & AT_REMOVEDIR ? RMDIR : UNLINK, 0, 0, where, 0, 0);
    if (ours) pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

int unlink(const char *path) { return removed(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return removed(AT_FDCWD, path, AT_REMOVEDIR); }
int unlinkat(int folder, const char *path, int flags) { return removed(folder, path, flags); }

static int made(int folder, const char *path, mode_t mode) {
    char where[PATH_MAX];
    int ours = resolve(folder, path, where);
    if (ours) pthread_mutex_lock(&lock);
    int result = syscall(SYS_mkdirat, folder, path, mode);
    int error = errno;
    if (ours && !result) append(MKDIR, 0, 0, where, 0, 0);
    if (ours) pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

int mkdir(const char *path, mode_t mode) { return made(AT_FDCWD, path, mode); }
int mkdirat(int folder, const char *path, mode_t mode) { return made(folder, path, mode); }
