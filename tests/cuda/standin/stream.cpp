// Streams, whose work is done when somebody waits for it; graphs; events.
#include <chrono>
#include <memory>
#include <set>

#include "state.h"

namespace {
using Clock = std::chrono::steady_clock;
struct Moment { Clock::time_point at; bool come = false; };
struct Event { std::shared_ptr<Moment> last; Stream* stream = nullptr; };
struct GraphRun { std::vector<Work> works; };

std::set<void*> streams, events, graphs, runs;

template <class T> T* known(const std::set<void*>& all, void* handle) {
  return all.count(handle) ? static_cast<T*>(handle) : nullptr;
}
}

int Stream::add(Work work) {
  if (!streams.count(this)) return INVALID_HANDLE;
  if (capturing) capturing->works.push_back(std::move(work));
  else works.push_back(std::move(work));
  return OK;
}

int Stream::run() {
  if (capturing) return invalidated = true, say(CAPTURE_UNSUPPORTED, "somebody waits for a stream that is captured");
  while (!works.empty()) {
    Work work = std::move(works.front());
    works.pop_front();
    if (int code = work()) return code;
  }
  return OK;
}

int run_all() {
  for (void* stream : streams)
    if (!static_cast<Stream*>(stream)->capturing)
      if (int code = static_cast<Stream*>(stream)->run()) return code;
  return OK;
}

API cuStreamCreate(void** stream, unsigned) {
  BEGIN(CONTEXT);
  streams.insert(*stream = new Stream);
  return OK;
}

API cuStreamDestroy_v2(void* stream) {
  BEGIN(CONTEXT);
  auto* found = known<Stream>(streams, stream);
  if (!found) return INVALID_HANDLE;
  int code = found->capturing ? OK : found->run();
  streams.erase(stream);
  delete found;
  return code;
}

API cuStreamSynchronize(void* stream) {
  BEGIN(CONTEXT);
  auto* found = known<Stream>(streams, stream);
  return found ? found->run() : INVALID_HANDLE;
}

API cuStreamBeginCapture_v2(void* stream, int mode) {
  BEGIN(CONTEXT);
  auto* found = known<Stream>(streams, stream);
  if (!found) return INVALID_HANDLE;
  if (mode < 0 || mode > 2 || found->capturing) return INVALID_VALUE;
  found->capturing = new Graph;
  found->invalidated = false;
  return OK;
}

API cuStreamEndCapture(void* stream, void** graph) {
  BEGIN(CONTEXT);
  *graph = nullptr;
  auto* found = known<Stream>(streams, stream);
  if (!found) return INVALID_HANDLE;
  if (!found->capturing) return CAPTURE_UNMATCHED;
  Graph* made = found->capturing;
  found->capturing = nullptr;
  if (found->invalidated) return delete made, CAPTURE_INVALIDATED;
  graphs.insert(*graph = made);
  return OK;
}

API cuGraphInstantiate(void** run, void* graph, void**, char*, size_t) {  // of CUDA 10: with a node and a log for errors
  BEGIN(CONTEXT);
  auto* found = known<Graph>(graphs, graph);
  if (!found) return INVALID_VALUE;
  runs.insert(*run = new GraphRun{found->works});
  return OK;
}

API cuGraphLaunch(void* run, void* stream) {
  BEGIN(CONTEXT);
  auto* found = known<GraphRun>(runs, run);
  auto* where = known<Stream>(streams, stream);
  if (!found || !where) return INVALID_HANDLE;
  for (auto& work : found->works) where->add(work);
  return OK;
}

API cuGraphDestroy(void* graph) {
  BEGIN(INIT);
  auto* found = known<Graph>(graphs, graph);
  if (!found) return INVALID_VALUE;
  graphs.erase(graph);
  delete found;
  return OK;
}

API cuGraphExecDestroy(void* run) {
  BEGIN(CONTEXT);
  auto* found = known<GraphRun>(runs, run);
  if (!found) return INVALID_VALUE;
  runs.erase(run);
  delete found;
  return OK;
}

API cuEventCreate(void** event, unsigned) {
  BEGIN(CONTEXT);
  events.insert(*event = new Event);
  return OK;
}

API cuEventDestroy_v2(void* event) {
  BEGIN(CONTEXT);
  auto* found = known<Event>(events, event);
  if (!found) return INVALID_HANDLE;
  events.erase(event);
  delete found;
  return OK;
}

API cuEventRecord(void* event, void* stream) {
  BEGIN(CONTEXT);
  auto* found = known<Event>(events, event);
  auto* where = known<Stream>(streams, stream);
  if (!found || !where) return INVALID_HANDLE;
  auto moment = std::make_shared<Moment>();
  found->last = moment;
  found->stream = where;
  return where->add([moment] { return moment->at = Clock::now(), moment->come = true, OK; });
}

API cuEventSynchronize(void* event) {
  BEGIN(CONTEXT);
  auto* found = known<Event>(events, event);
  if (!found) return INVALID_HANDLE;
  return found->last && !found->last->come ? found->stream->run() : OK;
}

API cuEventElapsedTime(float* milliseconds, void* start, void* end) {
  BEGIN(CONTEXT);
  auto *first = known<Event>(events, start), *last = known<Event>(events, end);
  if (!first || !last || !first->last || !last->last) return INVALID_HANDLE;
  if (!first->last->come || !last->last->come) return NOT_READY;
  *milliseconds = std::chrono::duration<float, std::milli>(last->last->at - first->last->at).count();
  return OK;
}

// For tests: handles of streams, events and graphs that were not given back.
extern "C" __attribute__((visibility("default"))) long standin_handles() {
  return streams.size() + events.size() + graphs.size() + runs.size();
}
