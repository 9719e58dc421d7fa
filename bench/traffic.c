/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Traffic of the bench: one process is one end. Prints one JSON object at the end.
 *
 *   traffic echo PORT                      TCP server: answers each byte, serves rr and crr
 *   traffic sink PORT                      TCP server: reads and counts, serves bulk
 *   traffic count PORT                     UDP server: counts datagrams
 *   traffic rr HOST PORT SECONDS           one byte there and back on one connection
 *   traffic crr HOST PORT SECONDS          connect, one byte there and back, close
 *   traffic bulk HOST PORT SECONDS         64 KiB writes
 *   traffic udp HOST PORT SECONDS SIZE     datagrams of SIZE payload bytes, as fast as they go
 *
 * Servers run until SIGTERM. cpu_s is user and system time of this process.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BATCH 64
#define CONNECTIONS 1024
#define SAMPLES (1 << 22)

static volatile sig_atomic_t stopping;
static uint64_t done, failed, bytes;
static uint32_t *samples;
static uint64_t sample_count;

static void stop(int signal_number)
{
	(void)signal_number;
	stopping = 1;
}

static void die(const char *what)
{
	fprintf(stderr, "traffic: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static double cpu_seconds(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
	       (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static int by_value(const void *left, const void *right)
{
	uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;

	return a < b ? -1 : a > b;
}

static double percentile_us(double share)
{
	if (!sample_count)
		return 0;
	return samples[(uint64_t)((double)(sample_count - 1) * share)] / 1e3;
}

static void sample(uint64_t ns)
{
	if (sample_count < SAMPLES)
		samples[sample_count++] = ns > UINT32_MAX ? UINT32_MAX : (uint32_t)ns;
}

static void report(double seconds, double cpu)
{
	qsort(samples, sample_count, sizeof *samples, by_value);
	printf("{\"count\": %llu, \"failed\": %llu, \"bytes\": %llu, \"seconds\": %.6f, "
	       "\"cpu_s\": %.6f, \"p25_us\": %.3f, \"p50_us\": %.3f, \"p99_us\": %.3f}\n",
	       (unsigned long long)done, (unsigned long long)failed, (unsigned long long)bytes,
	       seconds, cpu, percentile_us(.25), percentile_us(.5), percentile_us(.99));
}

static struct addrinfo *resolve(const char *host, const char *port, int type)
{
	struct addrinfo hints = { .ai_socktype = type }, *found;

	hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | (host ? 0 : AI_PASSIVE);
	hints.ai_family = host ? AF_UNSPEC : AF_INET6;
	if (getaddrinfo(host, port, &hints, &found))
		die("address");
	return found;
}

static void no_delay(int fd)
{
	int on = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static int dial(const struct addrinfo *to)
{
	struct timeval patience = { .tv_sec = 3 };
	struct linger reset = { .l_onoff = 1, .l_linger = 0 };
	int fd = socket(to->ai_family, to->ai_socktype, 0);

	if (fd < 0)
		die("socket");
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
	if (connect(fd, to->ai_addr, to->ai_addrlen)) {
		close(fd);
		return -1;
	}
	if (to->ai_socktype == SOCK_STREAM) {
		no_delay(fd);
		/* The client resets at the end, so that ports are not held in TIME_WAIT. */
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
	}
	return fd;
}

static int listen_on(const char *port)
{
	struct addrinfo *at = resolve(NULL, port, SOCK_STREAM);
	int on = 1, fd = socket(at->ai_family, SOCK_STREAM, 0);

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (bind(fd, at->ai_addr, at->ai_addrlen) || listen(fd, 512))
		die("listen");
	freeaddrinfo(at);
	return fd;
}

static void serve(const char *port, int echo)
{
	static struct pollfd polled[CONNECTIONS];
	static char buffer[1 << 18];
	nfds_t count = 1;

	polled[0] = (struct pollfd){ .fd = listen_on(port), .events = POLLIN };
	puts("ready");
	fflush(stdout);
	while (!stopping) {
		if (poll(polled, count, 200) <= 0)
			continue;
		for (nfds_t i = count; i-- > 1;) {
			ssize_t got;

			if (!polled[i].revents)
				continue;
			got = recv(polled[i].fd, buffer, echo ? 1 : sizeof buffer, 0);
			if (got <= 0) {
				close(polled[i].fd);
				polled[i] = polled[--count];
				continue;
			}
			bytes += (uint64_t)got;
			done++;
			if (echo && send(polled[i].fd, buffer, (size_t)got, MSG_NOSIGNAL) < 0)
				failed++;
		}
		if (polled[0].revents && count < CONNECTIONS) {
			int fd = accept(polled[0].fd, NULL, NULL);

			if (fd >= 0) {
				no_delay(fd);
				polled[count++] = (struct pollfd){ .fd = fd, .events = POLLIN };
			}
		}
	}
}

static void count_datagrams(const char *port)
{
	static char buffers[BATCH][2048];
	struct addrinfo *at = resolve(NULL, port, SOCK_DGRAM);
	struct timeval patience = { .tv_usec = 200000 };
	struct mmsghdr messages[BATCH];
	struct iovec parts[BATCH];
	int size = 1 << 22, fd = socket(at->ai_family, SOCK_DGRAM, 0);

	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	if (bind(fd, at->ai_addr, at->ai_addrlen))
		die("bind");
	freeaddrinfo(at);
	memset(messages, 0, sizeof messages);
	for (int i = 0; i < BATCH; i++) {
		parts[i] = (struct iovec){ buffers[i], sizeof buffers[i] };
		messages[i].msg_hdr.msg_iov = &parts[i];
		messages[i].msg_hdr.msg_iovlen = 1;
	}
	puts("ready");
	fflush(stdout);
	while (!stopping) {
		int got = recvmmsg(fd, messages, BATCH, MSG_WAITFORONE, NULL);

		for (int i = 0; i < got; i++)
			bytes += messages[i].msg_len;
		done += got > 0 ? (uint64_t)got : 0;
	}
}

static int exchange(int fd)
{
	char byte = 'x';

	return send(fd, &byte, 1, MSG_NOSIGNAL) == 1 && recv(fd, &byte, 1, 0) == 1;
}

static void request_response(const struct addrinfo *to, uint64_t until)
{
	int fd = dial(to);

	if (fd < 0)
		die("connect");
	while (!stopping && now_ns() < until) {
		uint64_t from = now_ns();

		if (!exchange(fd))
			die("exchange");
		sample(now_ns() - from);
		done++;
	}
	close(fd);
}

static void connect_request_response(const struct addrinfo *to, uint64_t until)
{
	while (!stopping && now_ns() < until) {
		uint64_t from = now_ns();
		int fd = dial(to);

		if (fd >= 0 && exchange(fd)) {
			done++;
			sample(now_ns() - from);
		} else {
			failed++;
		}
		if (fd >= 0)
			close(fd);
	}
}

static void send_bulk(const struct addrinfo *to, uint64_t until)
{
	static char buffer[1 << 16];
	int fd = dial(to);

	if (fd < 0)
		die("connect");
	while (!stopping && now_ns() < until) {
		ssize_t sent = send(fd, buffer, sizeof buffer, MSG_NOSIGNAL);

		if (sent < 0)
			die("send");
		bytes += (uint64_t)sent;
		done++;
	}
	close(fd);
}

static void send_datagrams(const struct addrinfo *to, uint64_t until, size_t size)
{
	static char buffer[2048];
	struct mmsghdr messages[BATCH];
	struct iovec part = { buffer, size < sizeof buffer ? size : sizeof buffer };
	int fd = dial(to);

	if (fd < 0)
		die("connect");
	memset(messages, 0, sizeof messages);
	for (int i = 0; i < BATCH; i++) {
		messages[i].msg_hdr.msg_iov = &part;
		messages[i].msg_hdr.msg_iovlen = 1;
	}
	while (!stopping && now_ns() < until) {
		int sent = sendmmsg(fd, messages, BATCH, 0);

		if (sent > 0)
			done += (uint64_t)sent;
		else if (errno != ENOBUFS && errno != EAGAIN)
			failed++;
	}
	close(fd);
}

int main(int argc, char **argv)
{
	const char *mode = argc > 1 ? argv[1] : "";
	uint64_t from;
	double cpu;

	samples = calloc(SAMPLES, sizeof *samples);
	if (!samples)
		die("memory");
	signal(SIGTERM, stop);
	signal(SIGINT, stop);
	from = now_ns();
	cpu = cpu_seconds();
	if (argc == 3 && !strcmp(mode, "echo")) {
		serve(argv[2], 1);
	} else if (argc == 3 && !strcmp(mode, "sink")) {
		serve(argv[2], 0);
	} else if (argc == 3 && !strcmp(mode, "count")) {
		count_datagrams(argv[2]);
	} else if (argc >= 5) {
		int datagrams = !strcmp(mode, "udp");
		struct addrinfo *to =
			resolve(argv[2], argv[3], datagrams ? SOCK_DGRAM : SOCK_STREAM);
		uint64_t until = from + (uint64_t)(atof(argv[4]) * 1e9);

		if (!strcmp(mode, "rr"))
			request_response(to, until);
		else if (!strcmp(mode, "crr"))
			connect_request_response(to, until);
		else if (!strcmp(mode, "bulk"))
			send_bulk(to, until);
		else if (datagrams && argc == 6)
			send_datagrams(to, until, (size_t)atoi(argv[5]));
		else
			goto usage;
		freeaddrinfo(to);
	} else {
		goto usage;
	}
	report((double)(now_ns() - from) / 1e9, cpu_seconds() - cpu);
	return 0;
usage:
	fprintf(stderr, "traffic: see the head of traffic.c for its modes\n");
	return 2;
}
