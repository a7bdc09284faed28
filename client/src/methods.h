// The gRPC names of the remote methods. The library has no generated stubs: see client/cmake/messages.cmake.
#pragma once

namespace attnd::client::method {

inline constexpr char kComputeAttention[] = "/attnd.v1.AttentionService/ComputeAttention";
inline constexpr char kStreamAttention[] = "/attnd.v1.AttentionService/StreamAttention";
inline constexpr char kAttendSession[] = "/attnd.v1.SessionService/Attend";
inline constexpr char kListSessions[] = "/attnd.v1.SessionService/ListSessions";
inline constexpr char kEvictSession[] = "/attnd.v1.SessionService/EvictSession";
inline constexpr char kListModels[] = "/attnd.v1.ModelService/ListModels";
inline constexpr char kGetModel[] = "/attnd.v1.ModelService/GetModel";
inline constexpr char kLoadModel[] = "/attnd.v1.ModelService/LoadModel";
inline constexpr char kUnloadModel[] = "/attnd.v1.ModelService/UnloadModel";
inline constexpr char kReloadModel[] = "/attnd.v1.ModelService/ReloadModel";
inline constexpr char kUploadTable[] = "/attnd.v1.ModelService/UploadTable";
inline constexpr char kGetBias[] = "/attnd.v1.ModelService/GetBias";
inline constexpr char kGetServerInfo[] = "/attnd.v1.ServerService/GetServerInfo";

// All of them.
inline constexpr const char* kAll[] = {
    kComputeAttention, kStreamAttention, kAttendSession, kListSessions, kEvictSession, kListModels,   kGetModel,
    kLoadModel,        kUnloadModel,     kReloadModel,   kUploadTable,  kGetBias,      kGetServerInfo};

}  // namespace attnd::client::method
